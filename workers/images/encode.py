"""Samples to bytes: the source's format or the one published instead, with its alpha, its colours and its metadata."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import Image

from workers.images import jpeg_blocks, png_blocks
from workers.images.coding import Coding, PublishedFormat
from workers.images.metadata import Capacity, Keep, Publishable
from workers.images.model import DecodedImage, EncodedImage, Samples
from workers.images.png_writer import write_palette, write_png

_NAMES: Final[dict[PublishedFormat, tuple[str, str]]] = {
    "JPEG": ("jpg", "image/jpeg"),
    "PNG": ("png", "image/png"),
    "WEBP": ("webp", "image/webp"),
}
_CAPACITIES: Final[dict[PublishedFormat, Capacity]] = {
    "JPEG": jpeg_blocks.CAPACITY,
    "PNG": Capacity(),
    "WEBP": Capacity(),
}

# ``exact`` keeps the colours under transparent pixels. In lossless mode ``quality`` is effort. Measured on a photograph
# of 12 megapixels with sensor noise, one core: method 0 1.0 s, 11.0 MB; method 1 2.7 s, 10.0 MB.
_WEBP_LOSSLESS: Final = {"lossless": True, "exact": True, "method": 0, "quality": 0}
# Lossy, the same photograph at quality 92: method 4 1.2 s, 1.81 MB, 41.9 dB; method 2 0.6 s, 1.73 MB, 41.6 dB.
_WEBP_LOSSY: Final = {"exact": True, "method": 4}
_LARGE_WEBP_LOSSY: Final = {"exact": True, "method": 2}
_LARGE_PIXELS: Final = 2_000_000


def encode(samples: Samples, like: DecodedImage, *, coding: Coding | None = None, keep: Keep = "all") -> EncodedImage:
    """Write ``samples`` the way ``like`` came: its alpha (PNG, WebP), its colours, its metadata.

    Args:
        samples: of the shape and type of ``like.samples``, and in its colours.
        coding: format and compression, where these shall not be ``like.coding``.
        keep: which metadata are published.

    Raises:
        ValueError: ``samples`` have another type or shape (a mistake of ours, not of the image's owner).
    """
    if samples.dtype != like.samples.dtype or samples.shape != like.samples.shape:
        expected = f"{like.samples.dtype} {like.samples.shape}"
        raise ValueError(f"Expected {expected} to encode, got {samples.dtype} {samples.shape}.")
    coding = coding or like.coding
    carried, lost = like.blocks.publishable(keep, _CAPACITIES[coding.format])
    if coding.format == "PNG" and like.source_format == "JPEG":
        carried = replace(carried, texts=tuple(map(png_blocks.comment, carried.texts)))
    if coding.format == "JPEG":
        data = _jpeg(samples, like, coding, carried)
    elif coding.format == "PNG":
        data = _png(samples, like, coding, carried)
    else:
        data = _webp(samples, like, coding, carried)
    extension, content_type = _NAMES[coding.format]
    return EncodedImage(data, extension, content_type, tuple(lost))


def _jpeg(samples: Samples, like: DecodedImage, coding: Coding, carried: Publishable) -> bytes:
    tables = [list(table) for table in (coding.tables if samples.ndim == 3 else coding.tables[:1])]
    options: dict[str, Any] = {"qtables": tables, "progressive": coding.progressive}
    if samples.ndim == 3 and samples.shape[2] == 3:
        options["subsampling"] = coding.sampling
    is_cmyk = samples.ndim == 3 and samples.shape[2] == 4
    image = Image.frombuffer("CMYK", samples.shape[1::-1], samples.tobytes()) if is_cmyk else _image(samples)
    return jpeg_blocks.with_metadata(_saved(image, "JPEG", like.profile, options), carried)


def _png(samples: Samples, like: DecodedImage, coding: Coding, carried: Publishable) -> bytes:
    data = write_palette(samples, like.alpha, coding.colours, like.samples) if coding.colours else None
    data = data or write_png(samples, like.alpha)
    return png_blocks.with_metadata(png_blocks.with_profile(data, like.profile), carried, like.chunks)


def _webp(samples: Samples, like: DecodedImage, coding: Coding, carried: Publishable) -> bytes:
    lossy = _LARGE_WEBP_LOSSY if samples.shape[0] * samples.shape[1] > _LARGE_PIXELS else _WEBP_LOSSY
    options = _WEBP_LOSSLESS if coding.quality is None else {**lossy, "quality": coding.quality}
    metadata = {"exif": carried.exif or b"", "xmp": carried.xmp or b""}
    return _saved(_image(_with_alpha(samples, like.alpha)), "WEBP", like.profile, {**options, **metadata})


def _with_alpha(samples: Samples, alpha: Samples | None) -> Samples:
    return samples if alpha is None else np.dstack([samples, alpha])


def _image(samples: Samples) -> Image.Image:
    """Of 8 bits: L, LA, RGB or RGBA."""
    return Image.fromarray(samples)


def _saved(image: Image.Image, file_format: str, profile: bytes | None, options: Mapping[str, Any]) -> bytes:
    with _memory_file() as file:
        image.save(file, file_format, icc_profile=profile, **options)
        file.seek(0)
        return file.read()


def _memory_file() -> BinaryIO:
    """With a descriptor, for then Pillow's JPEG encoder leaves Python's lock to others; in memory alone elsewhere."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("encoded"), "w+b")
    return io.BytesIO()
