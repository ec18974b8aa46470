"""Pixels to bytes, in the source's format, with its alpha, its colour profile and its metadata."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from workers.images import jpeg_blocks, png_blocks, webp
from workers.images.metadata import Keep
from workers.images.model import DecodedImage, EncodedImage, Pixels, SourceFormat

_NAMES: dict[SourceFormat, tuple[str, str]] = {
    "JPEG": ("jpg", "image/jpeg"),
    "PNG": ("png", "image/png"),
    "WEBP": ("webp", "image/webp"),
}

# Measured on a photograph of 512² and one of 12 megapixels with sensor noise, one core:
#   PNG level 1: 31 ms, 455 kB; 1.0 s, 16.3 MB   level 4: 61 ms, 414 kB; 2.4 s, 15.4 MB   level 6: 77 ms; 5.5 s, 14.7 MB
#   WebP lossless method 0: 9 ms, 369 kB; 1.0 s, 11.0 MB   method 1: 30 ms, 352 kB; 2.7 s, 10.0 MB
# A tenth of the bytes is not worth twice the time of a worker.
_PNG_OPTIONS: dict[str, Any] = {"compress_level": 1}
# Lossy WebP always halves the colour resolution (4:2:0), which would smooth the change away; so WebP is written
# lossless. ``exact`` keeps the colours under transparent pixels. In lossless mode ``quality`` is effort.
_WEBP_OPTIONS: dict[str, Any] = {"lossless": True, "exact": True, "method": 0, "quality": 0}
# 4:4:4 for the same reason. No optimised Huffman tables: they save 4 % for 3 times the time (73 → 236 ms at 12
# megapixels), and Pillow's buffer is too small for them on noisy images ("Suspension not allowed here").
_JPEG_OPTIONS: dict[str, Any] = {"subsampling": "4:4:4", "optimize": False}


_EXIF_LIMITS: dict[SourceFormat, int] = {
    "JPEG": jpeg_blocks.EXIF_LIMIT,
    "PNG": png_blocks.EXIF_LIMIT,
    "WEBP": webp.EXIF_LIMIT,
}


def encode(pixels: Pixels, like: DecodedImage, *, keep: Keep = "all", jpeg_quality: int = 95) -> EncodedImage:
    """Write ``pixels`` the way ``like`` came: same format, its alpha (PNG, WebP), its metadata, its profile.

    PNG and WebP are exact; JPEG has ``jpeg_quality`` (1–100) at 4:4:4. A grey or palette source becomes RGB, because
    the change is coloured.

    Args:
        pixels: uint8 (H, W, 3), in the colours of ``like.own_pixels``.
        keep: which metadata are published.

    Raises:
        ValueError: ``pixels`` has another type or shape (a mistake of ours, not of the image's owner).
    """
    if pixels.dtype != np.uint8 or pixels.shape != like.pixels.shape:
        raise ValueError(f"Expected uint8 {like.pixels.shape} to encode, got {pixels.dtype} {pixels.shape}.")
    options = {"JPEG": {**_JPEG_OPTIONS, "quality": jpeg_quality}, "PNG": _PNG_OPTIONS, "WEBP": _WEBP_OPTIONS}
    channels = pixels if like.alpha is None or like.source_format == "JPEG" else np.dstack([pixels, like.alpha])
    carried, lost = like.blocks.publishable(keep, _EXIF_LIMITS[like.source_format])
    metadata: dict[str, Any] = {"icc_profile": like.profile}
    if like.source_format == "WEBP":
        metadata |= {"exif": carried.exif or b"", "xmp": carried.xmp or b""}
    buffer = io.BytesIO()
    Image.fromarray(channels).save(buffer, like.source_format, **metadata, **options[like.source_format])
    data = buffer.getvalue()
    if like.source_format == "JPEG":
        data = jpeg_blocks.with_metadata(data, carried)
    elif like.source_format == "PNG":
        data = png_blocks.with_metadata(data, carried, {})
    extension, content_type = _NAMES[like.source_format]
    return EncodedImage(data, extension, content_type, tuple(lost))
