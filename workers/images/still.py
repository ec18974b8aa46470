"""JPEG, PNG and WebP: the formats that are published as they came."""

from __future__ import annotations

import io
from typing import TypeVar

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tasks.errors import AnimatedImage, TruncatedImage
from workers.images import deep, jpeg, png, webp
from workers.images.coding import LOSSLESS_PNG, as_png, of_jpeg, of_webp
from workers.images.colour import alpha_of, own_samples
from workers.images.opened import Opened

__all__ = ["open_jpeg", "open_png", "open_webp"]

Size = tuple[int, int]
_I = TypeVar("_I", bound=ImageFile)

# Plugins are called directly: Image.open would try other formats and would check size against a process-wide constant
# with a process-wide warning filter, which threads cannot set apart. It also keeps a phone's multi-picture JPEG a JPEG:
# its first picture is the photograph.


def open_jpeg(data: bytes, size: Size) -> Opened:
    """A JPEG; one that lost its end-of-image marker alone has all its pixels, and is read."""
    contents = jpeg.read(data, size[0] * size[1])
    image = _loaded(JpegImageFile, contents.picture, size)
    if not contents.complete:
        one, other = (_loaded(JpegImageFile, p, size).tobytes() for p in jpeg.with_other_end(contents.picture))
        if one != other:
            raise TruncatedImage("The JPEG is cut off: its last pixels are missing. Upload it again, completely.")
    return Opened(own_samples(image), None, contents.blocks, of_jpeg(image))


def open_png(data: bytes, size: Size) -> Opened:
    """A PNG of any kind and depth."""
    contents = png.read(data)
    bits = png.bit_depth(data)
    if bits == 16:
        colours, alpha = deep.read_png(contents.picture)
        coding = LOSSLESS_PNG
    else:
        image = _loaded(PngImageFile, contents.picture, size)
        colours, alpha = own_samples(image), alpha_of(image, bits)
        coding = as_png(image, alpha)
    return Opened(colours, alpha, contents.blocks, coding, contents.colours)


def open_webp(data: bytes, size: Size) -> Opened:
    """A WebP, lossy or lossless. Pillow refuses those above 179 megapixels."""
    image = _loaded(WebPImageFile, data, size)
    return Opened(own_samples(image), alpha_of(image, 8), webp.read(data), of_webp(data))


def _loaded(reader: type[_I], picture: bytes, size: Size) -> _I:
    image = reader(io.BytesIO(picture))
    # A file may hold two headers that disagree; the limits were checked for the first.
    if image.size != size:
        raise TruncatedImage(f"The {image.format} states two sizes. Export the image again and resubmit it.")
    if getattr(image, "is_animated", False):
        raise AnimatedImage(f"This {image.format} is animated. Send one frame as a still image.")
    image.load()
    return image
