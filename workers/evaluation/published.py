"""Photographs as they would be published under one codec and one set of options; kept on disk, so that a run that was
interrupted goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tasks.messages import ActivationOptions
from workers.activation.compose import compose, prepare
from workers.activation.engine import Activated, Engine, Work
from workers.activation.quality import quality
from workers.evaluation.subject import Photograph
from workers.images import EncodedImage, Limits, decode, encode
from workers.index.codec import Codec, Codes
from workers.index.journal import decode_code, encode_code

__all__ = ["Published", "PublishedSet"]

_BATCH: Final = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class Published:
    """One activated photograph; `code` is base64, `psnr_db` None when nothing changed, `ms` what it took in its
    batch, without reading and writing files."""

    image: str
    file: str
    code: str
    psnr_db: float | None
    ssim: float
    linf: int
    steps: int
    ms: float


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
        """Activate those that are not there yet, in batches."""
        size = _BATCH[engine.extractor.device.type]
        for start in range(len(self.images), len(photographs), size):
            made = self._activate(engine, photographs[start : start + size], limits, start)
            with self._lines.open("a") as file:
                file.writelines(json.dumps(asdict(one)) + "\n" for one in made)
            progress(start + len(made))

    @property
    def images(self) -> list[Published]:
        if not self._lines.exists():
            return []
        return [Published(**json.loads(line)) for line in self._lines.read_text().splitlines()]

    @property
    def codes(self) -> Codes:
        """(N, code_size) uint8, under which the photographs are registered."""
        return np.stack([decode_code(image.code) for image in self.images])

    @property
    def photographs(self) -> list[Photograph]:
        """What was published, in place of the originals."""
        return [Photograph(image.image, (self._folder / image.file).read_bytes()) for image in self.images]

    def _activate(
        self, engine: Engine, photographs: Sequence[Photograph], limits: Limits, number: int
    ) -> list[Published]:
        originals = [photograph.decoded(limits) for photograph in photographs]
        began = time.perf_counter()
        prepared = [
            prepare(o.pixels, engine.extractor.input_size, self._options.alpha, self._options.attenuation)
            for o in originals
        ]
        found = _drained(engine, [Work(p, self._codec, self._options, self._options.steps) for p in prepared])
        changed = [compose(o.own_pixels, p, f.change) for o, p, f in zip(originals, prepared, found, strict=True)]
        ms = 1000 * (time.perf_counter() - began) / len(photographs)
        made = []
        for photograph, original, pixels, one in zip(photographs, originals, changed, found, strict=True):
            number += 1
            encoded = encode(pixels, original)
            figures = quality(original.pixels, decode(encoded.data, limits).pixels)
            file = self._write(number, encoded)
            made.append(Published(photograph.name, file, encode_code(one.code), figures.psnr_db, figures.ssim,
                                  figures.linf, one.steps, ms))  # fmt: skip
        return made

    def _write(self, number: int, encoded: EncodedImage) -> str:
        """By number: two folders may hold files of one name."""
        file = f"{number:06d}.{encoded.extension}"
        (self._folder / file).write_bytes(encoded.data)
        return file


def _drained(engine: Engine, works: list[Work]) -> list[Activated]:
    """Run the engine to its end; nobody else waits for the device here."""
    steps = engine.activate(works)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
