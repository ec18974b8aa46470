"""TIFF and GIF: read as archives and old collections hold them, published as PNG."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import TiffImageFile

from tasks.errors import TruncatedImage, UnsupportedFormat
from workers.images import gif_blocks
from workers.images.coding import LOSSLESS_PNG, as_png
from workers.images.colour import alpha_of, own_samples
from workers.images.deep import Deep, divided
from workers.images.metadata import MANIFEST_LOST, Blocks, Density
from workers.images.metadata import photoshop as resources
from workers.images.metadata import tiff as block
from workers.images.opened import Opened

__all__ = ["gif_size", "open_gif", "open_tiff", "tiff_size"]

Size = tuple[int, int]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 0x100, 0x101, 0x102, 0x103, 0x106, 0x115
_TILE_WIDTH, _TILE_HEIGHT, _ACROSS, _DOWN, _UNIT, _SAMPLE_FORMAT = 0x142, 0x143, 0x11A, 0x11B, 0x128, 0x153
_EXTRA_SAMPLES, _IMAGE_DEPTH, _TILE_DEPTH = 0x152, 0x80E5, 0x80E6
# What an extra sample is (TIFF 6.0, section 18): not said, or alpha that the colours are multiplied with.
_UNSPECIFIED, _ASSOCIATED = 0, 1
# None, fax, LZW, JPEG, deflate, PackBits, LZMA, Zstandard.
_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000})
# A tile is decoded whole, also where the image is smaller.
_MAX_TILE_PIXELS: Final = 1 << 24
_DEPTHS: Final = frozenset({1, 2, 4, 8, 16})
_WHITE_IS_ZERO: Final = 0
# Cameras' raw files are TIFFs whose first page is a preview.
_SUBFILE, _REDUCED = 0xFE, 1
_FORM: Final = frozenset(
    {_SUBFILE, _BITS, _SAMPLE_FORMAT, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT, _EXTRA_SAMPLES}
    | {_IMAGE_DEPTH, _TILE_DEPTH}
)
_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})
_EXIF_LIMIT: Final = 16 << 20


def tiff_size(data: bytes) -> Size | None:
    """(width, height) of the first page; None where the first directory does not say."""
    numbers = block.numbers_of(data, frozenset({_WIDTH, _HEIGHT}))
    if _WIDTH not in numbers or _HEIGHT not in numbers:
        return None
    return numbers[_WIDTH][0], numbers[_HEIGHT][0]


def gif_size(data: bytes) -> Size:
    """(width, height) of the canvas."""
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def open_tiff(data: bytes, size: Size) -> Opened:
    """The first page of a TIFF: grey, RGB or palette of 8 or 16 bits, CMYK of 8."""
    numbers = {tag: values for tag, values in block.numbers_of(data, _FORM).items() if values}
    _check_tiff(numbers)
    blocks = _tiff_blocks(data)
    if _UNSPECIFIED in numbers.get(_EXTRA_SAMPLES, ()):
        blocks = blocks.without("channels that are neither colour nor transparency")
    bits = set(numbers.get(_BITS, (1,)))
    if bits == {16}:
        return Opened(*_sixteen_bits(data, size, numbers), blocks, LOSSLESS_PNG)
    # Pillow would turn the picture, and this system turns it for all formats in one place.
    image = TiffImageFile(io.BytesIO(block.with_orientation(data, 1)))
    if image.size != size:
        raise TruncatedImage("The TIFF states two sizes. Export the image again and resubmit it.")
    if image.mode not in _MODES:
        raise UnsupportedFormat(
            f"This kind of TIFF is not read ({image.mode}, {max(bits)} bits). Save it in grey, RGB or CMYK, of 8 bits."
        )
    image.load()
    alpha = alpha_of(image, 8)
    return Opened(own_samples(image), alpha, blocks, as_png(image, alpha))


def _check_tiff(numbers: dict[int, tuple[int, ...]]) -> None:
    if numbers.get(_SUBFILE, (0,))[0] & _REDUCED:
        raise UnsupportedFormat("This looks like a camera's raw file. Develop it, and submit a JPEG or a TIFF.")
    compression = numbers.get(_COMPRESSION, (1,))[0]
    if compression not in _COMPRESSIONS:
        raise UnsupportedFormat(f"The TIFF's compression ({compression}) is not read. Save it with LZW, or with none.")
    if not set(numbers.get(_BITS, (1,))) <= _DEPTHS or set(numbers.get(_SAMPLE_FORMAT, (1,))) != {1}:
        raise UnsupportedFormat("The TIFF's samples are no whole numbers of 8 or 16 bits. Save it with such.")
    if numbers.get(_TILE_WIDTH, (1,))[0] * numbers.get(_TILE_HEIGHT, (1,))[0] > _MAX_TILE_PIXELS:
        raise UnsupportedFormat("The TIFF's tiles are larger than any program writes. Save it in strips.")
    if any(numbers.get(tag, (1,))[0] != 1 for tag in (_IMAGE_DEPTH, _TILE_DEPTH)):
        raise UnsupportedFormat("The TIFF is a picture of three dimensions. Save one layer of it.")


def _sixteen_bits(data: bytes, size: Size, numbers: dict[int, tuple[int, ...]]) -> Deep:
    """Colours and alpha of a TIFF of 16 bits."""
    import tifffile  # noqa: PLC0415 - a tenth of a second, for a format that is rare

    count = numbers.get(_SAMPLES, (1,))[0]
    photometric = numbers.get(_PHOTOMETRIC, (1,))[0]
    if count not in (1, 2, 3, 4) or photometric not in (0, 1, 2):
        raise UnsupportedFormat("This kind of 16-bit TIFF is not read. Save it in grey or RGB.")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        samples = page.asarray(maxworkers=1)
        if page.planarconfig == 2 and samples.ndim == 3:
            samples = samples.transpose(1, 2, 0)
    if samples.shape[1::-1] != size or samples.dtype != np.uint16:
        raise TruncatedImage("The TIFF states two sizes. Export the image again and resubmit it.")
    found = divided(samples.reshape(*samples.shape[:2], -1))
    if photometric == _WHITE_IS_ZERO:
        found = found._replace(colours=np.uint16(65_535) - found.colours)
    extra = numbers.get(_EXTRA_SAMPLES, (None,))[0]
    if extra == _UNSPECIFIED:
        return found._replace(alpha=None)
    return found.straight() if extra == _ASSOCIATED else found


def _tiff_blocks(data: bytes) -> Blocks:
    others: dict[int, bytes] = {}
    parsed = block.parse(data, others)
    if parsed is None:
        raise TruncatedImage("The TIFF has no directory. Export the image again and resubmit it.")
    lost = ["further pages" if line == "EXIF thumbnail" else line for line in parsed.lost]
    manifest = others.get(block.CREDENTIALS)
    if manifest is not None:
        lost.insert(0, MANIFEST_LOST)
    parsed = parsed.changed(lambda d, e: None if d == block.MAIN and e.tag in block.PIXEL_LAYOUT else e)
    photoshop = others.get(block.PHOTOSHOP, b"")
    iptc = others.get(block.IPTC, b"").rstrip(b"\0")
    if iptc and resources.resource(resources.IPTC, iptc)[:6] not in photoshop:
        photoshop += resources.resource(resources.IPTC, iptc)
    return Blocks(
        exif=block.write(parsed, _EXIF_LIMIT),
        xmp=others.get(block.XMP),
        photoshop=photoshop or None,
        density=_tiff_density(data, parsed),
        profile=others.get(block.PROFILE),
        manifest=manifest,
        lost=tuple(lost[:32]),
    )


def _tiff_density(data: bytes, parsed: block.Directories) -> Density | None:
    across, down = parsed.ratio(_ACROSS), parsed.ratio(_DOWN)
    unit = block.numbers_of(data, frozenset({_UNIT})).get(_UNIT, (2,))[0]
    if not across or not down or unit not in (2, 3):
        return None
    return Density(max(1, round(across)), max(1, round(down)), "inch" if unit == 2 else "cm")


def open_gif(data: bytes, size: Size) -> Opened:
    """The first frame of a GIF."""
    contents = gif_blocks.read(data)
    image = GifImageFile(io.BytesIO(contents.picture))
    if image.size != size:
        raise TruncatedImage("The GIF states two sizes. Export the image again and resubmit it.")
    image.load()
    alpha = alpha_of(image, 8)
    return Opened(own_samples(image), alpha, contents.blocks, as_png(image, alpha))
