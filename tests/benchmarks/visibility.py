"""Is an image that one worker activated found by the very next query, through whichever worker?

``python -m tests.benchmarks.visibility [--count N] [--workers N] [--images DIR]``: real workers, one image after the
other; each is activated, and its protected file is asked for at once.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click

from producer import Producer
from tasks.results import ActivationResult, QueryResult
from tests.photographs import crops
from tests.stack import WorkerProcess, running_stack, settings_of


@click.command(help=__doc__)
@click.option("--count", default=1_000, show_default=True)
@click.option("--workers", default=4, show_default=True)
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Photographs; default: crops of few.")
def main(count: int, workers: int, images: Path | None) -> None:
    files = [path.read_bytes() for path in sorted(images.iterdir())[:count]] if images else crops(count, side=160)
    found = elsewhere = 0
    wrong: Counter[str] = Counter()
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = stack.enter_context(running_stack(state)) | {"OMP_NUM_THREADS": "1"}
        settings = settings_of(state)
        for i in range(workers):
            worker = WorkerProcess(environment, settings, state / f"worker-{i}.log", "query,activate")
            stack.callback(worker.wait_until_ready().kill)
        producer = stack.enter_context(Producer.connect(settings))
        began = time.perf_counter()
        for data in files:
            result = producer.activate(data).wait(60)
            assert isinstance(result, ActivationResult)
            answer = producer.query(producer.protected_image(result)).wait(60)
            assert isinstance(answer, QueryResult)
            found += answer.matches[0].asset_id == result.asset_id
            elsewhere += answer.provenance.worker != result.provenance.worker
            if answer.matches[0].asset_id != result.asset_id:
                among = [match.asset_id for match in answer.matches]
                wrong["among the first five" if result.asset_id in among else "not at all"] += 1
    elapsed_s = time.perf_counter() - began
    click.echo(f"First match: {found} of {len(files)}; asked through another worker: {elsewhere}; {elapsed_s:.0f} s.")
    for what, times in wrong.items():
        click.echo(f"Not first, but {what}: {times}")


if __name__ == "__main__":
    main()
