"""What handing over costs a GPU: ``python -m tests.benchmarks.handover``.

Worker processes share a stub of a device, which takes six milliseconds for a batch of up to 64 images, one batch at a
time, as a GPU would. Their handlers' pixel work is a stub too: it sleeps. So nothing but threads, futures and batches
is left to keep the device waiting.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier, Lock
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import torch

from workers.device.device import Device

_CODEC = object()
_SHARED: dict[str, Any] = {}  # of all processes: locks cannot be sent with a task


@dataclass(frozen=True)
class Load:
    """Attributes: `images` go through each process, `in_flight` at a time; `batch_ms` is the device's time for a batch,
    and `pixels_ms` a handler's for an image."""

    processes: int
    images: int
    in_flight: int
    batch_ms: float
    pixels_ms: float


class StubEngine:
    """Takes its time, alone on the device that all processes share."""

    def __init__(self, device: Lock, batch_ms: float) -> None:
        self._device, self._batch_ms = device, batch_ms
        self.busy_s, self.batches = 0.0, 0

    def staged(self, work: Any) -> Any:
        return work

    def pinned(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def together(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(parts))

    def features(self, images: torch.Tensor) -> np.ndarray:
        """A forward pass: a third of a step, which goes backwards too."""
        self._work(self._batch_ms / 3)
        return np.zeros((len(images), 1), np.float32)

    def activate(self, works: Sequence[Any]) -> Generator[None, None, list[Any]]:
        self._work(self._batch_ms)
        self.batches += 1
        yield
        return list(works)

    def _work(self, ms: float) -> None:
        with self._device:
            began = time.perf_counter()
            time.sleep(ms / 1000)
            self.busy_s += time.perf_counter() - began


@click.command(help=__doc__)
@click.option("--processes", default=4, show_default=True)
@click.option("--images", default=4096, show_default=True, help="Through each process.")
@click.option("--in-flight", default=128, show_default=True, help="Images that one process works on at once.")
@click.option("--batch-ms", default=6.0, show_default=True, help="The device's time for a batch.")
@click.option("--pixels-ms", default=1.5, show_default=True, help="A handler's for an image: of 16 cores by default.")
def main(processes: int, images: int, in_flight: int, batch_ms: float, pixels_ms: float) -> None:
    busy, rate, batch = measure(Load(processes, images, in_flight, batch_ms, pixels_ms))
    click.echo(f"device busy {busy:.0%}, {rate:.0f} images/s, mean batch {batch:.1f}")


def measure(load: Load) -> tuple[float, float, float]:
    """The share of time that the device is busy, images a second, and the mean batch."""
    context = multiprocessing.get_context("spawn")
    device, together = context.Lock(), context.Barrier(load.processes)
    with context.Pool(load.processes, initializer=_share, initargs=(device, together)) as pool:
        found = pool.map(_run, [load] * load.processes, chunksize=1)
    seconds = max(end for _, end, _, _ in found) - min(begin for begin, _, _, _ in found)
    images = load.processes * load.images
    busy, batches = (sum(row[i] for row in found) for i in (2, 3))
    return busy / seconds, images / seconds, images / batches


def _share(device: Lock, together: Barrier) -> None:
    _SHARED.update(device=device, together=together)


def _run(load: Load) -> tuple[float, float, float, int]:
    """Beginning, end, seconds that this process had the device for, and batches, in a process of its own."""
    torch.set_num_threads(1)
    engine = StubEngine(_SHARED["device"], load.batch_ms)
    device = Device(SimpleNamespace(device=torch.device("cpu"), input_size=1), batch_images=64, alternates=True)  # type: ignore[arg-type]
    device._engine = engine  # type: ignore[assignment]
    device.start()
    handle = partial(_handle, device, partial(time.sleep, load.pixels_ms / 2000))
    with ThreadPoolExecutor(load.in_flight) as handlers:
        _SHARED["together"].wait()
        began = time.time()
        list(handlers.map(handle, range(load.images)))
        ended = time.time()
    device.stop()
    return began, ended, engine.busy_s, engine.batches


def _handle(device: Device, pixels: Callable[[], None], number: int) -> None:
    """What a handler does for an image: pixels, activation, pixels, verification."""
    pixels()
    device.activate(SimpleNamespace(kind=_CODEC))  # type: ignore[arg-type]
    pixels()
    device.extract(torch.zeros(1, 1, 1), can_wait=True)


if __name__ == "__main__":
    main()
