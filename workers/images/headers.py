"""What a file is and how large it claims to be, from its first bytes, before any decoder sees it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import cast

from tasks.errors import TruncatedImage, UnsupportedFormat
from workers.images.archive import gif_size, tiff_size
from workers.images.heif import heif_size
from workers.images.jpeg import frame_header
from workers.images.model import ACCEPTED, SourceFormat

JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# What people send by mistake; only used to name it in the message, so a wrong guess costs nothing.
_LOOKS_LIKE = (
    (rb"(?s)\s*<(!doctype html|html|head|body)", "an HTML page, perhaps an error page saved under an image's name"),
    (rb"(?s)(\xef\xbb\xbf)?\s*(<\?xml.{,1000})?<(!doctype )?svg", "an SVG drawing"),
    (rb"\s*<\?xml", "an XML document"),
    (rb"%PDF-", "a PDF document"),
    (rb"II\+\x00|MM\x00\+", "a BigTIFF"),
    (rb"BM", "a BMP"),
    (rb"(?s).{4}ftyp|\x1aE\xdf\xa3", "a video"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "a JPEG XL"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000"),
    (rb"8BPS", "a Photoshop document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"\x00\x00\x01\x00", "an icon"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\s*[{\[]", "JSON"),
    (rb"[\t\n\r\x20-\x7e]+\Z", "plain text"),
)
# Brands of an ISO base media file (ISO 23008-12; AVIF 1.1): the first one that is known names the kind.
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC"}


def recognise(data: bytes) -> SourceFormat:
    """Name the format by its signature; the file's name plays no part.

    Raises:
        UnsupportedFormat: none that is read; the message says what it looks like.
        TruncatedImage: the file ends within a signature.
    """
    if data.startswith(JPEG_SIGNATURE):
        return "JPEG"
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if (kind := _brand(data)) is not None:
        return kind
    signatures = (JPEG_SIGNATURE, PNG_SIGNATURE, b"RIFF")
    if len(data) < 12 and any(signature.startswith(data[: len(signature)]) for signature in signatures):
        raise TruncatedImage(f"The file ends after {len(data)} bytes. Upload it again, completely.")
    raise _refusal(data)


def size_of(data: bytes, source_format: SourceFormat) -> tuple[int, int]:
    """(width, height) as the header states them, before orientation.

    Raises:
        TruncatedImage: the header is incomplete or damaged.
        UnsupportedFormat: a JPEG of a kind that is not read (see :func:`workers.images.jpeg.frame_header`).
    """
    if source_format == "JPEG":
        frame = frame_header(data)
        return frame.width, frame.height
    readers: dict[SourceFormat, Callable[[bytes], tuple[int, int] | None]] = {
        "PNG": _png_size,
        "WEBP": _webp_size,
        "TIFF": tiff_size,
        "GIF": gif_size,
        "AVIF": heif_size,
        "HEIC": heif_size,
    }
    size = readers[source_format](data)
    if size is None:
        raise TruncatedImage(f"The {source_format} header is damaged. Export the image again and resubmit it.")
    return size


def _brand(data: bytes) -> SourceFormat | None:
    """AVIF or HEIC, by the major brand and those it is compatible with."""
    if data[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, length, 4))]
    return cast(SourceFormat | None, next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None))


def _png_size(data: bytes) -> tuple[int, int] | None:
    """From IHDR, which must be the first chunk (PNG specification, 11.2.1)."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """From the first chunk: VP8X (canvas), VP8L (lossless) or VP8 (lossy); RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16]
    if len(data) < 30:
        return None
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _refusal(data: bytes) -> UnsupportedFormat:
    head = data[:2048]
    for pattern, name in _LOOKS_LIKE:
        if re.match(pattern, head, re.IGNORECASE):
            return UnsupportedFormat(f"This looks like {name}. Accepted are {ACCEPTED}: convert it and resubmit it.")
    return UnsupportedFormat(f"These bytes are no image this system knows. Accepted are {ACCEPTED}.")
