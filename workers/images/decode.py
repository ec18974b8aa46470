"""Bytes to pixels. The order matters: each check is cheaper than what it protects."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL.Image import DecompressionBombError, Image, Transpose
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tasks.errors import AiiError, AnimatedImage, EmptyImage, TooLarge, TooSmall, TruncatedImage
from workers.images import jpeg, png, webp
from workers.images.colour import alpha_of, to_srgb
from workers.images.headers import recognise, size_of
from workers.images.metadata import Blocks
from workers.images.model import ACCEPTED, DecodedImage, Limits, SourceFormat

# The plugin is chosen by our own sniffing and called directly: Image.open would try other formats and would check size
# against a process-wide constant with a process-wide warning filter, which threads cannot set apart. It also keeps a
# phone's multi-picture JPEG a JPEG: its first picture is the photograph.
_READERS: dict[SourceFormat, type[ImageFile]] = {"JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile}

# EXIF orientation (CIPA DC-008, tag 0x0112) to the operation that makes the picture upright; 1 needs none.
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def decode(data: bytes, limits: Limits) -> DecodedImage:
    """Read one still image, whatever its colour mode, as upright sRGB.

    ICC profiles are applied (see :mod:`workers.images.colour`), the EXIF orientation too; alpha is set aside, not
    blended. PNG's gAMA, cHRM and cICP are not read. Pillow refuses WebP above 179 megapixels whatever ``limits`` says.

    Raises:
        EmptyImage, TooLarge, TooSmall, UnsupportedFormat, AnimatedImage: as named; nothing has been decoded.
        TruncatedImage: incomplete or damaged, found before or during decoding.
    """
    _check_bytes(data, limits)
    source_format = recognise(data)
    size = size_of(data, source_format)
    _check_size(size, limits)
    bits = png.bit_depth(data) if source_format == "PNG" else 8
    picture, blocks, complete = _taken_apart(data, source_format, size)
    image = _opened(picture, source_format, size)
    if not complete:
        _check_all_there(picture, size)
    return _decoded(image, source_format, blocks, bits)


def _taken_apart(data: bytes, source_format: SourceFormat, size: tuple[int, int]) -> tuple[bytes, Blocks, bool]:
    """What the decoder is given, what the file carries beside it, and whether the file has an end."""
    if source_format == "JPEG":
        return jpeg.read(data, size[0] * size[1])
    if source_format == "PNG":
        contents = png.read(data)
        return contents.picture, contents.blocks, True
    return data, webp.read(data), True


def _opened(picture: bytes, source_format: SourceFormat, size: tuple[int, int]) -> ImageFile:
    with _errors_named(source_format):
        image = _READERS[source_format](io.BytesIO(picture))
        # A file may hold two headers that disagree; the limits were checked for the first.
        if image.size != size:
            raise TruncatedImage(f"The {source_format} states two sizes. Export the image again and resubmit it.")
        if getattr(image, "is_animated", False):
            raise AnimatedImage(f"This {source_format} is animated. Send one frame, as one of {ACCEPTED}.")
        image.load()
        return image


def _check_all_there(picture: bytes, size: tuple[int, int]) -> None:
    """Of a JPEG without its end-of-image marker: it may have lost that alone, which many programs forgive."""
    one, other = (_opened(ended, "JPEG", size).tobytes() for ended in jpeg.with_other_end(picture))
    if one != other:
        raise TruncatedImage("The JPEG is cut off: its last pixels are missing. Upload it again, completely.")


def _decoded(image: ImageFile, source_format: SourceFormat, blocks: Blocks, bit_depth: int) -> DecodedImage:
    orientation = blocks.orientation
    upright: Image = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
    alpha = alpha_of(upright, bit_depth)
    colours = to_srgb(upright, blocks.profile)
    return DecodedImage(colours.srgb, alpha, source_format, blocks, colours.profile, colours.native)


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
