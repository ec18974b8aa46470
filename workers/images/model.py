"""What goes in and out of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

SourceFormat: TypeAlias = Literal["JPEG", "PNG", "WEBP"]
Pixels: TypeAlias = NDArray[np.uint8]

ACCEPTED = "JPEG, PNG and WebP"


@dataclass(frozen=True)
class Limits:
    """What is still read: ``max_bytes`` of file, ``max_pixels`` of width × height, ``min_side`` of the shorter side."""

    max_bytes: int
    max_pixels: int
    min_side: int = 16


@dataclass(frozen=True)
class DecodedImage:
    """One still image, upright, in sRGB.

    Attributes:
        pixels: uint8 (H, W, 3), sRGB, 0–255, never multiplied by alpha; writable and contiguous.
        alpha: uint8 (H, W), 0 is transparent; None when the source has no transparency.
        source_format: what the bytes were.
        exif: ``b"Exif\\0\\0"`` and a TIFF block with orientation 1, without thumbnail and maker note; None when absent.
    """

    pixels: Pixels
    alpha: Pixels | None
    source_format: SourceFormat
    exif: bytes | None


@dataclass(frozen=True)
class EncodedImage:
    """A file ready to publish: its bytes, the extension without a dot (``jpg``, ``png``, ``webp``), its MIME type."""

    data: bytes
    extension: str
    content_type: str
