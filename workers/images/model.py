"""What goes in and out of this package."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.settings import Settings
from workers.images.metadata import Blocks

SourceFormat: TypeAlias = Literal["JPEG", "PNG", "WEBP"]
Pixels: TypeAlias = NDArray[np.uint8]

ACCEPTED = "JPEG, PNG and WebP"


@dataclass(frozen=True)
class Limits:
    """What is still read: ``max_bytes`` of file, ``max_pixels`` of width × height, ``min_side`` of the shorter side."""

    max_bytes: int
    max_pixels: int
    min_side: int = 16

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those that the settings name."""
        return cls(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


@dataclass(frozen=True)
class DecodedImage:
    """One still image, upright, in sRGB.

    Attributes:
        pixels: uint8 (H, W, 3), sRGB, 0–255, never multiplied by alpha; writable and contiguous.
        alpha: uint8 (H, W), 0 is transparent; None when the source has no transparency.
        source_format: what the bytes were.
        blocks: metadata as found, with the density; what of it may be published, :meth:`Blocks.publishable` says.
        profile: the ICC profile of an RGB source, written anew; None when absent, unusable, or not of RGB.
        native: uint8 (H, W, 3), the pixels in that profile's colours; None where they are the same as in sRGB.
    """

    pixels: Pixels
    alpha: Pixels | None
    source_format: SourceFormat
    blocks: Blocks = field(default_factory=Blocks)
    profile: bytes | None = None
    native: Pixels | None = None

    @property
    def own_pixels(self) -> Pixels:
        """The pixels to publish again under ``profile``: no colour outside of sRGB is lost."""
        return self.pixels if self.native is None else self.native

    def without_profile(self) -> DecodedImage:
        """The picture in sRGB."""
        return replace(self, profile=None, native=None)


@dataclass(frozen=True)
class EncodedImage:
    """A file ready to publish: its bytes, the extension without a dot (``jpg``, ``png``, ``webp``), its MIME type.

    ``lost`` has a line for each thing of the source that could not be kept.
    """

    data: bytes
    extension: str
    content_type: str
    lost: tuple[str, ...] = ()
