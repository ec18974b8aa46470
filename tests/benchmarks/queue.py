"""Through the queue against the bare engine: ``python -m tests.benchmarks.queue [--json FILE]``.

The same photographs by processes that have nothing to do with queues, but do with them what a worker does, in as many
threads, fed from memory; and through a producer, Redis, S3 and as many real workers as `aii up` starts here, which is
how many bare processes there are; in turns, since a shared machine is now faster and now slower. Both have seen the
photographs once before: kernels are made for each shape. Then what a query takes, with idle workers and with workers
saturated by activations.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded, as in workers

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch

from deploy.local.services import workers_here
from producer import Producer
from tasks.messages import ActivationOptions
from tasks.results import ActivationResult
from tasks.settings import Settings
from tests.photographs import crops
from tests.stack import running_stack, settings_of
from workers.activation.engine import BATCH_IMAGES
from workers.activation.quality import quality
from workers.commands.worker import share_cores
from workers.device.device import Device
from workers.device.priority import lower_priority
from workers.extractors.registry import load_extractor
from workers.handlers.protect import Protector
from workers.images import Limits, decode
from workers.index.codec.codec import Codec
from workers.index.maintenance import starter
from workers.monitoring.stopwatch import Stopwatch

BareRun = Callable[[ActivationOptions], None]
DEFAULTS, WARMING = ActivationOptions(), ActivationOptions(steps=2)
LIMITS = Limits(max_bytes=64 * 2**20, max_pixels=100_000_000)


@click.command(help=__doc__)
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Photographs; default: crops of few.")
@click.option("--count", default=200, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Batches through the queue.")
@click.option("--workers", type=click.IntRange(1), help="Default: as many as `aii up` starts.")
@click.option("--queries", default=100, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(
    images: Path | None, count: int, rounds: int, workers: int | None, queries: int, json_path: Path | None
) -> None:
    files = [p.read_bytes() for p in sorted(images.iterdir())[:count]] if images else crops(count, side=320)
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(running_stack(state, workers))
        settings = settings_of(state)
        producer = stack.enter_context(Producer.connect(settings))
        processes = workers or workers_here(settings)
        with bare_engines(processes, files) as bare:
            figures = {"images": len(files), "processes": processes} | in_turns(producer, bare, files, rounds)
        figures |= query_latency(producer, settings, files, queries)
    for name, value in figures.items():
        click.echo(f"{name:<32}{value:.3f}" if isinstance(value, float) else f"{name:<32}{value}")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


def in_turns(producer: Producer, bare: BareRun, files: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Images per second without and with the queue; `ratio` is of all rounds, `ratios` are of each round and the two
    bare ones around it."""
    bare(WARMING)
    _queue_run(producer, files, WARMING)
    bare_s, queue_s = [_seconds(lambda: bare(DEFAULTS))], []
    for _ in range(rounds):
        queue_s.append(_seconds(lambda: _queue_run(producer, files)))
        bare_s.append(_seconds(lambda: bare(DEFAULTS)))
    rate, bare_rate = rounds * len(files) / sum(queue_s), (rounds + 1) * len(files) / sum(bare_s)
    around = [(before + after) / 2 for before, after in pairwise(bare_s)]
    return {
        "device": str(_device()), "bare_images_per_s": bare_rate, "queue_images_per_s": rate, "ratio": rate / bare_rate,
        "ratios": [round(bare / queue, 3) for bare, queue in zip(around, queue_s, strict=True)],
    }  # fmt: skip


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _queue_run(producer: Producer, files: Sequence[bytes], options: ActivationOptions = DEFAULTS) -> None:
    """From the first submission to the last result document."""
    jobs = [producer.activate(data, options=options, again=True) for data in files]
    done = list(producer.wait_all(jobs, 600))
    assert len(done) == len(files)


@dataclass(frozen=True)
class _Bare:
    """What a worker's process has to activate images, and files in its memory."""

    device: Device
    protector: Protector
    codec: Codec
    files: Sequence[bytes]

    @classmethod
    def start(cls, files: Sequence[bytes]) -> _Bare:
        extractor, card = load_extractor("compact", _device()), starter.read_card()
        codec = Codec.read(starter.FOLDER / "codec.faiss", card.factory)
        device = Device(extractor, batch_images=BATCH_IMAGES[_device().type])
        device.warm(codec)
        device.start()
        return cls(device, Protector(device, extractor.input_size, LIMITS), codec, files)

    def run(self, options: ActivationOptions) -> None:
        """Everything a worker does for its files but fetching and storing them."""

        def activated(data: bytes) -> None:
            original = decode(data, LIMITS)
            _, protected = self.protector.protect(original, options, self.codec, Stopwatch())
            quality(original.pixels, protected.decoded.pixels)

        with ThreadPoolExecutor(Settings().activate_threads, initializer=_as_handler) as pool:
            list(pool.map(activated, self.files)).clear()


_bare: list[_Bare] = []  # of a process, which starts with it


@contextmanager
def bare_engines(processes: int, files: Sequence[bytes]) -> Iterator[BareRun]:
    """A call that activates all files in so many processes, of one thread for each operation where there are several,
    as workers are."""
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch and FAISS when they are loaded
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, context, _start_bare, (files[number::processes],)))
            for number in range(processes)
        ]
        yield lambda options: [run.result() for run in [pool.submit(_run_bare, options) for pool in pools]].clear()


def _as_handler() -> None:
    torch.set_num_threads(1)
    lower_priority()


def _start_bare(files: Sequence[bytes]) -> None:
    share_cores()
    _bare.append(_Bare.start(files))


def _run_bare(options: ActivationOptions) -> None:
    _bare[0].run(options)


def query_latency(producer: Producer, settings: Settings, files: Sequence[bytes], count: int) -> dict[str, Any]:
    """Milliseconds from submission to answer, and the worker's own; one query at a time."""
    idle = _ask(producer, files, count)
    backlog = [producer.activate(data, options=ActivationOptions(steps=n)) for n in (20, 21, 22) for data in files]
    busy = _ask(producer, files, count)
    finished = sum(job.state().value == "done" for job in backlog)
    if finished == len(backlog):
        click.echo("The backlog ended before the queries did: the busy figures are too good.")
    done = [result for _, result in producer.wait_all(backlog, 900) if isinstance(result, ActivationResult)]
    batch = BATCH_IMAGES[_device().type]
    step_ms = statistics.mean(r.provenance.timings_ms["optimise"] / r.verification.steps for r in done)
    return {
        "query_p50_ms_idle": idle[0], "query_p95_ms_idle": idle[1],
        "query_p50_ms_busy": busy[0], "query_p95_ms_busy": busy[1],
        "step_ms_per_image": step_ms,
        "step_ms_of_a_batch": step_ms * batch,
        "query_p95_ms_busy_at_most": 2 * idle[1] + step_ms * batch,  # the goal: a query waits for the step in progress
    }  # fmt: skip


def _ask(producer: Producer, files: Sequence[bytes], count: int) -> tuple[float, float]:
    producer.query(files[0]).wait(60)
    times = []
    for i in range(count):
        began = time.perf_counter()
        producer.query(files[i % len(files)]).wait(60)
        times.append(1000 * (time.perf_counter() - began))
    quantiles = statistics.quantiles(times, n=20)
    return quantiles[9], quantiles[18]


if __name__ == "__main__":
    main()
