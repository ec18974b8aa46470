"""Where a core's time goes for one image: ``python -m tests.benchmarks.stages [--side 512] [--extractor NAME]``.

From a JPEG to its protected file with its check and its quality, in one process and one thread, as a handler and the
device do it for an activation by the defaults. What is counted is the processor's time of this process, and each stage
of every round comes right after the one before it, so that other programs on the machine hardly change the shares.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded, as in workers

import io
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from tasks.messages import ActivationOptions
from tests.benchmarks.activation import LIMITS, drain, make_subject, photographs_of
from workers.activation.compose import compose, prepare
from workers.activation.engine import BATCH_IMAGES, Activated, Engine, Work
from workers.activation.quality import quality
from workers.activation.verification import CodeFit
from workers.extractors.base import Extractor
from workers.images import DecodedImage, decode, encode
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec

FORWARD = "forward that registers"  # and verifies
STEP_FORWARD, STEP_BACKWARD = "a step's forward", "a step's backward"
BESIDES = "engine, all else"


@dataclass
class Clock:
    """Core-seconds and calls by stage, of one round."""

    seconds: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def stage(self, name: str, images: int = 1) -> Iterator[None]:
        began = time.process_time()
        yield
        self.add(name, time.process_time() - began, images)

    def add(self, name: str, seconds: float, images: int) -> None:
        self.seconds[name] += seconds
        self.calls[name] += images


class _Noted(torch.autograd.Function):
    """Gives back what it is given, and calls when the gradient comes by."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, call: Callable[[], None]) -> torch.Tensor:
        context.call = call
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        context.call()
        return gradient, None


class Timed:
    """An extractor whose passes are timed; everything else is as the extractor has it."""

    def __init__(self, extractor: Extractor, clock: Clock) -> None:
        self._extractor, self._clock = extractor, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        with self._clock.stage(FORWARD, len(images)):
            return self._extractor(images)

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        came, count = 0.0, len(images)

        def begin() -> None:
            nonlocal came
            came = time.process_time()

        def end() -> None:
            self._clock.add(STEP_BACKWARD, time.process_time() - came, count)

        images = _Noted.apply(images, end)  # type: ignore[no-untyped-call]
        with self._clock.stage(STEP_FORWARD, count):
            features = self._extractor.guide(images)
        return _Noted.apply(features, begin)  # type: ignore[no-any-return, no-untyped-call]


@click.command(help=__doc__)
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Photographs; default: scikit-image's.")
@click.option("--extractor", default="compact", show_default=True)
@click.option(
    "--features",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .npy of the extractor's features of references, to train its codec on, as for tests.benchmarks.activation.",
)
@click.option("--side", default=512, show_default=True, help="Of the photographs, which are cut to squares.")
@click.option("--count", default=8, show_default=True, help="Photographs.")
@click.option("--batch", default=BATCH_IMAGES["cpu"], show_default=True, help="Images in a batch of the engine.")
@click.option("--rounds", default=5, show_default=True, help="The median of so many rounds is shown.")
def main(  # one parameter an option
    images: Path | None, extractor: str, features: Path | None, side: int, count: int, batch: int, rounds: int
) -> None:
    torch.set_num_threads(1)
    subject = make_subject(extractor, torch.device("cpu"), images, features)
    files = [_jpeg(pixels) for pixels in photographs_of(images, (side, side), count)]
    one_round(subject.extractor, subject.codec, files[:batch], batch)  # warm
    show([one_round(subject.extractor, subject.codec, files, batch) for _ in range(rounds)], len(files))


def one_round(extractor: Extractor, codec: Codec, files: Sequence[bytes], batch: int) -> Clock:
    clock = Clock()
    timed = Timed(extractor, clock)
    engine = Engine(timed)
    for start in range(0, len(files), batch):
        _protect(engine, codec, files[start : start + batch], clock)
    return clock


def _protect(engine: Engine, codec: Codec, files: Sequence[bytes], clock: Clock) -> None:
    options, size = ActivationOptions(), engine.extractor.input_size
    originals, prepared = [], []
    for file in files:
        with clock.stage("decode"):
            originals.append(decode(file, LIMITS))
        with clock.stage("prepare"):
            prepared.append(prepare(originals[-1].pixels, size, options.alpha))
    works = [Work(image, codec, options, options.steps) for image in prepared]
    before = _passes_s(clock)
    with clock.stage(BESIDES, len(files)):
        found = drain(engine.activate(works))
    clock.seconds[BESIDES] -= _passes_s(clock) - before
    for original, work, activated in zip(originals, works, found, strict=True):
        _publish(engine, original, work, activated, clock)


def _passes_s(clock: Clock) -> float:
    return sum(clock.seconds[name] for name in (FORWARD, STEP_FORWARD, STEP_BACKWARD))


def _publish(engine: Engine, original: DecodedImage, work: Work, found: Activated, clock: Clock) -> None:
    with clock.stage("compose"):
        samples = compose(original.samples, work.prepared, found.change)
    with clock.stage("encode"):
        encoded = encode(samples, original)
    with clock.stage("decode what is published"):
        published = decode(encoded.data, LIMITS)
    with clock.stage("shrink what is published"):
        seen = to_input(published.pixels, engine.extractor.input_size)
    feature = engine.features(seen[None])[0]
    with clock.stage("fits"):
        for of in (found.feature, feature):
            CodeFit.of(of, found.code, found.target, work.codec)
    with clock.stage("quality"):
        quality(original.pixels, published.pixels)


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def show(rounds: Sequence[Clock], images: int) -> None:
    """Core-milliseconds an image, their share, and how often an image goes through a stage."""
    medians = {
        name: statistics.median(1000 * clock.seconds[name] / images for clock in rounds) for name in rounds[0].seconds
    }
    total = sum(medians.values())
    for name, ms in medians.items():
        click.echo(f"{name:<30}{ms:8.2f} ms {100 * ms / total:5.0f} %{rounds[0].calls[name] / images:7.2f} an image")
    click.echo(f"{'all':<30}{total:8.2f} ms")


if __name__ == "__main__":
    main()
