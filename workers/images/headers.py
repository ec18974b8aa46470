"""What a file is and how large it claims to be, from its first bytes, before any decoder sees it."""

from __future__ import annotations

import re
import struct

from tasks.errors import AnimatedImage, TruncatedImage, UnsupportedFormat
from workers.images.jpeg import frame_header
from workers.images.model import ACCEPTED, SourceFormat

JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# What people send by mistake; only used to name it in the message, so a wrong guess costs nothing.
_LOOKS_LIKE = (
    (rb"GIF8[79]a", "a GIF"),
    (rb"(?s)\s*<(!doctype html|html|head|body)", "an HTML page, perhaps an error page saved under an image's name"),
    (rb"(?s)\s*(<\?xml.{,1000})?<svg", "an SVG drawing"),
    (rb"\s*<\?xml", "an XML document"),
    (rb"%PDF-", "a PDF document"),
    (rb"II\*\x00|MM\x00\*", "a TIFF or a camera's raw file"),
    (rb"BM", "a BMP"),
    (rb"(?s).{4}ftyp(heic|heix|hevc|mif1|msf1)", "a HEIC photograph"),
    (rb"(?s).{4}ftyp(avif|avis)", "an AVIF"),
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
# A graphic control extension: one stands before each frame of an animation.
_GIF_FRAME = re.compile(rb"(?s)\x21\xf9\x04.{4}\x00")


def recognise(data: bytes) -> SourceFormat:
    """Name the format by its signature; the file's name plays no part.

    Raises:
        UnsupportedFormat: neither JPEG, PNG nor WebP; the message says what it looks like.
        AnimatedImage: a GIF with more than one frame.
        TruncatedImage: the file ends within a signature.
    """
    if data.startswith(JPEG_SIGNATURE):
        return "JPEG"
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
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
    size = _png_size(data) if source_format == "PNG" else _webp_size(data)
    if size is None:
        raise TruncatedImage(f"The {source_format} header is damaged. Export the image again and resubmit it.")
    return size


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


def _refusal(data: bytes) -> UnsupportedFormat | AnimatedImage:
    head = data[:2048]
    if head.startswith(b"GIF8") and len(_GIF_FRAME.findall(data)) > 1:
        return AnimatedImage(f"This is an animated GIF. Send one frame, as one of {ACCEPTED}.")
    for pattern, name in _LOOKS_LIKE:
        if re.match(pattern, head, re.IGNORECASE):
            return UnsupportedFormat(f"This looks like {name}. Accepted are {ACCEPTED}: convert it and resubmit it.")
    return UnsupportedFormat(f"These bytes are no image this system knows. Accepted are {ACCEPTED}.")
