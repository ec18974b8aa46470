"""What goes in and out of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.settings import Settings
from workers.images.coding import Coding
from workers.images.metadata import Blocks

SourceFormat: TypeAlias = Literal["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "HEIC"]
Pixels: TypeAlias = NDArray[np.uint8]
Samples: TypeAlias = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16

ACCEPTED = "JPEG, PNG, WebP, TIFF, GIF, AVIF and HEIC"


@dataclass(frozen=True)
class Limits:
    """What is still read: ``max_bytes`` of file, ``max_pixels`` of width × height, ``min_side`` of the shorter side,
    ``max_side`` of the longer one, which is what JPEG allows: on the way to the extractor's input of S × S pixels, S
    times as many values are in memory."""

    max_bytes: int
    max_pixels: int
    min_side: int = 16
    max_side: int = 65_535

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those that the settings name."""
        return cls(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


@dataclass(frozen=True)
class DecodedImage:
    """One still image, upright, in sRGB; and what its file was like.

    Attributes:
        pixels: uint8 (H, W, 3), sRGB, 0–255, never multiplied by alpha; writable and contiguous.
        alpha: (H, W), as deep as the samples, 0 is transparent; None when the source has no transparency.
        source_format: what the bytes were.
        coding: format and compression that a published file has, unless something else is asked for.
        blocks: metadata as found, with the density; what of it may be published, :meth:`Blocks.publishable` says.
        profile: the ICC profile that ``samples`` are in; None when absent or unusable.
        chunks: PNG's chunks that say what colours ``samples`` are in; they are published again as they are.
        tone: float32 (256,), by how much a sample of each level (of 8 bits) changes for one level of sRGB; None for 1.
        own: see ``samples``; None where ``pixels`` are the same.
    """

    pixels: Pixels
    alpha: Samples | None
    source_format: SourceFormat
    coding: Coding
    blocks: Blocks = field(default_factory=Blocks)
    profile: bytes | None = None
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)
    own: Samples | None = None
    tone: NDArray[np.float32] | None = None

    @property
    def samples(self) -> Samples:
        """As the file has them, of 8 or 16 bits: grey (H, W), RGB (H, W, 3) or CMYK (H, W, 4), in its own colours."""
        return self.pixels if self.own is None else self.own

    @cached_property
    def is_grey(self) -> bool:
        """Whether no pixel has a colour, however the file stores that."""
        if self.samples.ndim == 2:
            return True
        # Most images with colours show one within a few rows.
        return all(_colourless(self.pixels[rows]) for rows in (slice(None, None, 64), slice(None)))

    def without_profile(self) -> DecodedImage:
        """The picture in plain sRGB, where that loses no depth and no ink: of 8-bit RGB."""
        plain = self.samples.ndim == 3 and self.samples.shape[2] == 3 and self.samples.dtype == np.uint8
        return replace(self, profile=None, chunks={}, own=None, tone=None) if plain else self

    def of_rows(self, bands: Sequence[slice]) -> DecodedImage:
        """Some rows of the picture, one band below the other."""
        chosen = np.concatenate([np.arange(band.start, band.stop) for band in bands])
        alpha, own = (None if part is None else part[chosen] for part in (self.alpha, self.own))
        return replace(self, pixels=self.pixels[chosen], alpha=alpha, own=own)


def _colourless(pixels: Pixels) -> bool:
    """Lossy formats give a grey that is off by a level."""
    return bool((pixels.max(axis=2) - pixels.min(axis=2)).max() <= 1)


@dataclass(frozen=True)
class EncodedImage:
    """A file ready to publish: its bytes, the extension without a dot (``jpg``, ``png``, ``webp``), its MIME type.

    ``lost`` has a line for each thing of the source that could not be kept.
    """

    data: bytes
    extension: str
    content_type: str
    lost: tuple[str, ...] = ()
