"""What a query takes from submission to answer: ``python -m tests.benchmarks.queries --images DIR [--other CHECKOUT]``.

One worker, and one question at a time, in the starter collection. Another checkout of this repository, such as one of
the version before, with an environment `.venv` of its own, is asked the same in turns: a shared machine is now faster
and now slower.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

_HERE = Path(__file__).parents[2]
# Run in a checkout: starts its services, and answers each line of input with the milliseconds of all queries. It uses
# nothing that version 0.1.0 lacks.
_ASKING = """
import json, sys, tempfile, time
from pathlib import Path
from producer import Producer
from tests.stack import running_stack, settings_of

files = [Path(name).read_bytes() for name in sys.argv[1:]]
with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder), 1):
    with Producer.connect(settings_of(Path(folder))) as producer:
        producer.query(files[0]).wait(120)
        print("ready", flush=True)
        for _ in sys.stdin:
            times = []
            for data in files:
                began = time.perf_counter()
                producer.query(data).wait(120)
                times.append(1000 * (time.perf_counter() - began))
            print(json.dumps(times), flush=True)
"""


@click.command(help=__doc__)
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=40, show_default=True, help="Images.")
@click.option("--rounds", default=10, show_default=True, help="How often all are asked for.")
@click.option("--other", type=click.Path(exists=True, path_type=Path), help="Another checkout.")
def main(images: Path, count: int, rounds: int, other: Path | None) -> None:
    files = [path.absolute() for path in sorted(images.iterdir())[:count]]
    times: dict[Path, list[float]] = {checkout: [] for checkout in [_HERE, *([other] if other else [])]}
    with ExitStack() as stack:
        asked = {checkout: stack.enter_context(_stack(checkout, files)) for checkout in times}
        for _ in range(rounds):
            for checkout, process in asked.items():
                times[checkout] += _asked(process)
    for checkout, of_it in times.items():
        p50, p95 = (statistics.quantiles(of_it, n=20)[i] for i in (9, 18))
        click.echo(f"{checkout}: p50 {p50:.1f} ms, p95 {p95:.1f} ms of {len(of_it)} queries")
    if other:
        click.echo(f"p50 is {statistics.median(times[_HERE]) / statistics.median(times[other]):.2f} times the other's")


@contextmanager
def _stack(checkout: Path, files: list[Path]) -> Iterator[subprocess.Popen[str]]:
    """A process in a checkout that is ready to ask."""
    command = [checkout / ".venv" / "bin" / "python", "-c", _ASKING, *files]
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            _line(process)
            yield process
        finally:
            process.stdin.close()


def _asked(process: subprocess.Popen[str]) -> list[float]:
    """Milliseconds of all queries, once."""
    assert process.stdin is not None
    process.stdin.write("again\n")
    process.stdin.flush()
    times: list[float] = json.loads(_line(process))
    return times


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise click.ClickException("A checkout's services did not start, or a query failed: see above.")
    return line


if __name__ == "__main__":
    main()
