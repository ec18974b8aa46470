"""How a published file is compressed: as its source was, or finer, where the change does not survive that."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from workers.images.vp8 import quality_of

__all__ = ["LOSSLESS_PNG", "Coding", "PublishedFormat", "Table", "as_png", "of_jpeg", "of_webp", "standard_jpeg"]

PublishedFormat: TypeAlias = Literal["JPEG", "PNG", "WEBP"]
Table: TypeAlias = tuple[int, ...]

# Pillow's numbers for chroma subsampling.
FULL_CHROMA, HALF_WIDTH = 0, 1
# The finest that is tried: what survives in no JPEG of this quality at 4:4:4 would not survive publication elsewhere.
_FINEST_JPEG: Final = 95
_FINEST_LOSSY_WEBP: Final = 95
# A change needs some colours between those of the source. Four times as many hold 0.6 to 0.99 of what it gains, at the
# PSNR that it has in RGB: a photograph of 256 colours grows to 1.1 times its size instead of 2.8 times, of 64 to 1.7
# instead of 4.1, of 16 to 2.2 instead of 7.3, of 4 to 6 instead of 13 (the largest of four photographs each).
_COLOURS_FOR_ONE: Final = 4
_LEAST_COLOURS, _MOST_COLOURS = 64, 256


@dataclass(frozen=True)
class Coding:
    """Format and compression.

    Attributes:
        tables: of a JPEG, its quantisation tables in natural order: of luminance, and of chroma.
        sampling: of a JPEG, 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.
        progressive: of a JPEG.
        quality: of a WebP, 0 to 100; None is lossless.
        colours: of a PNG, how many its palette holds; None is without a palette.
    """

    format: PublishedFormat
    tables: tuple[Table, ...] = ()
    sampling: int = FULL_CHROMA
    progressive: bool = False
    quality: int | None = None
    colours: int | None = None

    @property
    def is_lossy(self) -> bool:
        """Whether neighbouring pixels lose something to each other; a palette is no such loss."""
        return self.format == "JPEG" or (self.format == "WEBP" and self.quality is not None)

    def finer(self) -> Coding | None:
        """The next one, of which more survives; None for the finest."""
        if self.format == "JPEG":
            return self._finer_jpeg()
        if self.format == "WEBP" and self.quality is not None:
            better = (self.quality + 101) // 2
            return replace(self, quality=better if better <= _FINEST_LOSSY_WEBP else None)
        return LOSSLESS_PNG if self.colours else None

    def _finer_jpeg(self) -> Coding | None:
        finest = standard_jpeg(_FINEST_JPEG, self.progressive)
        if self.sampling != FULL_CHROMA:
            return replace(self, sampling=FULL_CHROMA)
        if _sum(self.tables) <= _sum(finest.tables) * len(self.tables) / len(finest.tables):
            return None
        halved = tuple(tuple((step + 1) // 2 for step in table) for table in self.tables)
        coarse = _sum(halved) > _sum(finest.tables) * len(self.tables) / len(finest.tables)
        return replace(self, tables=halved) if coarse else finest

    def of_quality(self, quality: int) -> Coding:
        """The same format at a quality from 1 to 100, in full colour resolution where there is a choice."""
        if self.format == "JPEG":
            return standard_jpeg(quality, self.progressive)
        return replace(self, quality=quality) if self.format == "WEBP" else self

    def lossless(self) -> Coding:
        """WebP stays WebP; JPEG, which is never lossless, becomes PNG."""
        return replace(self, quality=None) if self.format == "WEBP" else LOSSLESS_PNG


LOSSLESS_PNG: Final = Coding("PNG")


def of_jpeg(image: JpegImageFile) -> Coding:
    """How this JPEG is compressed. Samplings that Pillow cannot write, 4:4:0 and 4:1:1, become 4:2:2."""
    numbers = [layer[3] for layer in image.layer] if image.layers == 3 else [image.layer[0][3]]
    numbers = numbers[:2] if len(numbers) == 3 and numbers[1] == numbers[2] else numbers
    tables = tuple(tuple(min(step, 255) for step in image.quantization[number]) for number in numbers)
    sampling = FULL_CHROMA
    if image.layers == 3:
        stated = get_sampling(image)
        sampling = HALF_WIDTH if stated < 0 else stated
    return Coding("JPEG", tables, sampling, "progressive" in image.info)


def as_png(image: Image.Image, alpha: NDArray[Any] | None) -> Coding:
    """A PNG of a palette where the source has one, and no pixel is half transparent."""
    if image.mode != "P" or not (alpha is None or np.isin(alpha, (0, 255)).all()):
        return LOSSLESS_PNG
    used = len(image.getcolors(_MOST_COLOURS) or ())
    return Coding("PNG", colours=min(max(used * _COLOURS_FOR_ONE, _LEAST_COLOURS), _MOST_COLOURS))


def of_webp(data: bytes) -> Coding:
    """How this WebP is compressed, from its first frame."""
    position = 12
    while position + 8 <= len(data):
        kind, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            frame = data[position + 8 : position + 8 + min(size, 512)]
            return Coding("WEBP", quality=quality_of(frame) if kind == b"VP8 " else None)
        position += 8 + size + size % 2
    return Coding("WEBP")


@lru_cache(maxsize=128)
def standard_jpeg(quality: int, progressive: bool = False) -> Coding:
    """The tables that libjpeg has for a quality, at 4:4:4."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality, subsampling=FULL_CHROMA)
    buffer.seek(0)
    return replace(of_jpeg(JpegImageFile(buffer)), progressive=progressive)


def _sum(tables: tuple[Table, ...]) -> int:
    return sum(map(sum, tables))
