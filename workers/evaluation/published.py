"""Photographs as the service publishes them under one codec and one set of options; kept on disk, so that a run that
was interrupted goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from tasks.messages import ActivationOptions
from workers.activation.engine import Engine
from workers.activation.quality import luminance_psnr_db, quality
from workers.device.device import Device
from workers.evaluation.subject import Photograph
from workers.handlers.protect import Protector
from workers.images import EncodedImage, Limits
from workers.images.folders import ImageFile
from workers.index.codec.codec import Codec, Codes
from workers.index.collection.journal import decode_code, encode_code
from workers.monitoring.stopwatch import Stopwatch

__all__ = ["Published", "PublishedSet"]

# Which images share a batch depends on the threads' timing, and rounding on the batch. On a CPU, where batches of one
# are no slower, each image is its own batch, so that two runs give the same figures to the last digit.
_BATCH: Final = {"cpu": 1, "cuda": 16}
_HANDLERS: Final = {"cpu": 2, "cuda": 32}
_WINDOW: Final = 64  # photographs handed over at once: an interruption waits for no more
_COUNTED_STAGES: Final = ("prepare", "optimise", "compose")


@dataclass(frozen=True)
class Published:
    """One activated photograph.

    Attributes:
        code: base64, under which it is registered.
        delta_e: as in :class:`tasks.results.Quality`.
        psnr_db, psnr_y_db: of all channels, and of luminance; None when nothing changed.
        steps: of the last try.
        verified: whether the file fits its code better than the original; if not, it is published unchanged.
        ms: for preparing, optimising and composing; reading, encoding and verifying files is not counted.
    """

    image: str
    file: str
    code: str
    psnr_db: float | None
    psnr_y_db: float | None
    ssim: float
    linf: int
    steps: int
    verified: bool
    ms: float
    delta_e: float | None = None


class PublishedSet:
    """``images.jsonl``, a line each, and the files beside it."""

    def __init__(self, folder: Path, codec: Codec, options: ActivationOptions) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lines = folder / "images.jsonl"
        self._codec = codec
        self._options = options

    def fill(
        self, engine: Engine, photographs: Sequence[Photograph], limits: Limits, progress: Callable[[int], None]
    ) -> None:
        """Activate those that are not there yet, in their order."""
        done = self._restored()
        pairs = zip(done, photographs, strict=False)
        assert all(image.image == p.name for image, p in pairs), "a key belongs to one set of photographs"
        if len(done) >= len(photographs):
            return
        device = engine.extractor.device.type
        with (
            self._lines.open("a", encoding="utf-8") as file,
            _device(engine) as thread,
            ThreadPoolExecutor(_HANDLERS[device]) as handlers,
        ):
            protector = Protector(thread, engine.extractor.input_size, limits)
            numbered = list(enumerate(photographs))[len(done) :]
            while numbered:
                some, numbered = numbered[:_WINDOW], numbered[_WINDOW:]
                for made in handlers.map(lambda n: self._publish(protector, limits, *n), some):
                    file.write(json.dumps(asdict(made)) + "\n")
                    file.flush()
                progress(len(photographs) - len(numbered))

    @cached_property
    def images(self) -> list[Published]:
        """In the order of the photographs; once the set is filled."""
        return self._restored()

    @property
    def codes(self) -> Codes:
        """(N, code_size) uint8, under which the photographs are registered."""
        return np.stack([decode_code(image.code) for image in self.images])

    @property
    def photographs(self) -> list[Photograph]:
        """What was published, in place of the originals."""
        return [Photograph(image.image, ImageFile.at(self._folder / image.file, image.file)) for image in self.images]

    def _restored(self) -> list[Published]:
        """What is there, after cutting off the line that an interruption left half written."""
        if not self._lines.exists():
            return []
        text = self._lines.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            self._lines.write_bytes(whole)
        return [Published(**json.loads(line)) for line in whole.decode("utf-8").splitlines()]

    def _publish(self, protector: Protector, limits: Limits, number: int, photograph: Photograph) -> Published:
        original, watch = photograph.decoded(limits), Stopwatch()
        found, protected = protector.protect(original, self._options, self._codec, watch)
        stages = watch.timings_ms()
        figures = quality(original.pixels, protected.decoded.pixels)
        psnr_y_db = luminance_psnr_db(original.pixels, protected.decoded.pixels)
        return Published(
            image=photograph.name,
            file=self._write(number, protected.encoded),
            code=encode_code(found.code),
            psnr_db=figures.psnr_db,
            psnr_y_db=psnr_y_db if math.isfinite(psnr_y_db) else None,
            ssim=figures.ssim,
            linf=figures.linf,
            delta_e=figures.delta_e,
            steps=protected.steps,
            verified=protected.verified,
            ms=sum(stages[stage] for stage in _COUNTED_STAGES),
        )

    def _write(self, number: int, encoded: EncodedImage) -> str:
        """By number: two folders may hold files of one name."""
        file = f"{number:06d}.{encoded.extension}"
        (self._folder / file).write_bytes(encoded.data)
        return file


@contextmanager
def _device(engine: Engine) -> Iterator[Device]:
    """As in a worker, but a broken device fails the evaluation in words, instead of ending the process."""
    batch = _BATCH[engine.extractor.device.type]
    device = Device(engine.extractor, batch_images=batch, on_broken_device=lambda: None)
    device.start()
    try:
        yield device
    finally:
        device.stop()
