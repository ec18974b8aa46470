"""Bytes to pixels. The order matters: each check is cheaper than what it protects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from PIL.Image import DecompressionBombError

from tasks.errors import AiiError, EmptyImage, TooLarge, TooSmall, TruncatedImage
from workers.images.archive import open_gif, open_tiff
from workers.images.colour import Stated, to_srgb
from workers.images.headers import recognise, size_of
from workers.images.heif import open_avif, open_heic
from workers.images.model import DecodedImage, Limits, SourceFormat
from workers.images.opened import Opened, upright
from workers.images.still import open_jpeg, open_png, open_webp

_READERS: Final[dict[SourceFormat, Callable[[bytes, tuple[int, int]], Opened]]] = {
    "JPEG": open_jpeg,
    "PNG": open_png,
    "WEBP": open_webp,
    "TIFF": open_tiff,
    "GIF": open_gif,
    "AVIF": open_avif,
    "HEIC": open_heic,
}


def decode(data: bytes, limits: Limits) -> DecodedImage:
    """Read one still image, whatever its colour mode, as upright sRGB; and its samples as the file has them.

    What the file says of its colours is applied (see :mod:`workers.images.colour`), the orientation too; alpha is set
    aside, not blended.

    Raises:
        EmptyImage, TooLarge, TooSmall, UnsupportedFormat, AnimatedImage: as named; nothing has been decoded.
        TruncatedImage: incomplete or damaged, found before or during decoding.
    """
    source_format, size = _checked_header(data, limits)
    with _errors_named(source_format):
        opened = _READERS[source_format](data, size)
        return _decoded(opened, source_format)


def pixels_of(data: bytes, limits: Limits) -> int:
    """Width × height as the header states them; no pixel is decoded. Errors as in :func:`decode`, before decoding."""
    _, (width, height) = _checked_header(data, limits)
    return width * height


def _checked_header(data: bytes, limits: Limits) -> tuple[SourceFormat, tuple[int, int]]:
    _check_bytes(data, limits)
    source_format = recognise(data)
    size = size_of(data, source_format)
    _check_size(size, limits)
    return source_format, size


def _decoded(opened: Opened, source_format: SourceFormat) -> DecodedImage:
    blocks = opened.blocks
    samples, alpha = (
        None if plane is None else upright(plane, blocks.orientation) for plane in (opened.samples, opened.alpha)
    )
    assert samples is not None
    colours = to_srgb(samples, Stated(blocks.profile, opened.chunks))
    if colours.problem:
        blocks = blocks.without(f"ICC profile: {colours.problem}; the picture was read as sRGB")
    return DecodedImage(
        pixels=colours.srgb,
        alpha=alpha,
        source_format=source_format,
        coding=opened.coding,
        blocks=blocks,
        profile=colours.profile,
        chunks=opened.chunks,
        own=colours.own,
        tone=colours.tone,
    )


def _check_bytes(data: bytes, limits: Limits) -> None:
    if len(data) > limits.max_bytes:
        raise TooLarge(f"The file has {len(data):,} bytes; the limit is {limits.max_bytes:,}. Send a smaller one.")
    if not data:
        raise EmptyImage("The file is empty. Check that the upload finished, then resubmit it.")


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise TooLarge(
            f"The image has {width:,} × {height:,} pixels; the limit is {limits.max_pixels:,} in all. Scale it down."
        )
    if max(size) > limits.max_side:
        raise TooLarge(
            f"The image has {width:,} × {height:,} pixels; a side may have {limits.max_side:,}. Scale it down."
        )
    if min(size) < limits.min_side:
        raise TooSmall(f"The image has {width} × {height} pixels; each side needs at least {limits.min_side}.")


@contextmanager
def _errors_named(source_format: SourceFormat) -> Iterator[None]:
    """Whatever a decoder raises over bad bytes becomes one of ours."""
    try:
        yield
    except (AiiError, MemoryError):
        # Memory running out is the worker's trouble, not the image's: the job may well succeed elsewhere.
        raise
    except DecompressionBombError as error:
        raise TooLarge(f"The image is too large to be decoded safely ({error}). Scale it down first.") from error
    except Exception as error:  # Pillow names no closed set of what its readers raise
        raise TruncatedImage(
            f"The {source_format} is incomplete or damaged ({error}). Export the image again and resubmit it."
        ) from error
