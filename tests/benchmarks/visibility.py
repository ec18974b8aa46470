"""Is an image that one worker activated found by the very next query, through whichever worker?

``python -m tests.benchmarks.visibility [--count N] [--workers N] [--images DIR]``: real workers, half of which only
activate and half of which only answer; one image after the other is activated, and its protected file is asked for at
once, necessarily through another worker.
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
@click.option("--workers", default=4, show_default=True, type=click.IntRange(2))
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Photographs; default: crops of few.")
def main(count: int, workers: int, images: Path | None) -> None:
    files = [path.read_bytes() for path in sorted(images.iterdir())[:count]] if images else crops(count, side=160)
    found = elsewhere = 0
    pairs: Counter[tuple[str, str]] = Counter()
    wrong: Counter[str] = Counter()
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = stack.enter_context(running_stack(state)) | {"OMP_NUM_THREADS": "1"}
        settings = settings_of(state)
        for i in range(workers):
            queues = "query" if i % 2 else "activate"
            worker = WorkerProcess(environment, settings, state / f"worker-{i}.log", queues)
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
            pairs[result.provenance.worker, answer.provenance.worker] += 1
            if answer.matches[0].asset_id != result.asset_id:
                among = [match.asset_id for match in answer.matches]
                wrong["among the first five" if result.asset_id in among else "not at all"] += 1
    elapsed_s = time.perf_counter() - began
    click.echo(f"First match: {found} of {len(files)}; asked through another worker: {elsewhere}; {elapsed_s:.0f} s.")
    click.echo(f"Between two workers, each pair of them: {', '.join(map(str, sorted(pairs.values())))} times.")
    for what, times in wrong.items():
        click.echo(f"Not first, but {what}: {times}")


if __name__ == "__main__":
    main()
