"""What files are, by their first bytes: the formats of images that workers read, and what else lies beside them.

One table, which the producer's search for images and the workers' decoders share.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["FORMATS", "HEAD_BYTES", "ImageFormat", "format_named", "format_of", "kind_of"]

HEAD_BYTES: Final = 1_024  # as many of a file's first bytes as :func:`format_of` and :func:`kind_of` need


@dataclass(frozen=True)
class ImageFormat:
    """One format that workers read.

    Attributes:
        signature: a regular expression over the first bytes.
        suffixes: of file names, in lower case; the usual one first.
        published: suffix of the protected file of such an image.
    """

    name: str
    content_type: str
    signature: bytes
    suffixes: tuple[str, ...]
    published: str


# Brands of ISO base media files: ISO 23008-12, annex B.4, and AVIF 1.1, section 6.
FORMATS: Final = (
    ImageFormat("JPEG", "image/jpeg", rb"\xff\xd8\xff", (".jpg", ".jpeg", ".jpe", ".jfif"), ".jpg"),
    ImageFormat("PNG", "image/png", rb"\x89PNG\r\n\x1a\n", (".png",), ".png"),
    ImageFormat("WebP", "image/webp", rb"(?s)RIFF.{4}WEBP", (".webp",), ".webp"),
    ImageFormat("TIFF", "image/tiff", rb"II\*\x00|MM\x00\*", (".tif", ".tiff"), ".png"),
    ImageFormat("GIF", "image/gif", rb"GIF8[79]a", (".gif",), ".png"),
    ImageFormat("AVIF", "image/avif", rb"(?s).{4}ftypavi[fs]", (".avif",), ".jpg"),
    ImageFormat(
        "HEIC", "image/heic", rb"(?s).{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", (".heic", ".heif"), ".jpg",

    ),
)  # fmt: skip

# What else lies in folders of images; only used in messages, so a wrong guess costs nothing.
_OTHERS: Final = (
    (rb"(?s)\s*<(!doctype html|html|head|body)", "HTML"),
    (rb"(?s)\s*(<\?xml.{,900})?<svg", "SVG"),
    (rb"\s*<\?xml|<x:xmpmeta", "XML"),
    (rb"%PDF-", "PDF"),
    (rb"BM.{4}\0\0\0\0", "BMP"),
    (rb"(?s).{4}ftypcrx |II\x1a\x00|FUJIFILMCCD-RAW|IIRO|IIU\x00", "camera raw"),
    (rb"(?s).{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI |\x00\x00\x01\xba", "video"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"8BPS", "Photoshop"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"\x00\x00[\x01\x02]\x00", "icon"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ", "archive"),
    (rb"SQLite format 3\x00", "SQLite"),
    (rb"\s*[{\[]", "JSON"),
)  # fmt: skip


def format_of(head: bytes) -> ImageFormat | None:
    """The format of an image, by the first bytes of its file; the file's name plays no part."""
    return next((kind for kind in FORMATS if re.match(kind.signature, head)), None)


def format_named(suffix: str) -> ImageFormat | None:
    """The format whose files have that suffix, such as ``.JPG``."""
    return next((kind for kind in FORMATS if suffix.lower() in kind.suffixes), None)


def kind_of(head: bytes) -> str:
    """What a file is, in a word for a person: ``HEIC``, ``PDF``, ``text``, ``empty``; ``unknown`` where it cannot be
    told."""
    if not head:
        return "empty"
    if known := format_of(head):
        return known.name
    if other := next((name for start, name in _OTHERS if re.match(start, head)), None):
        return other
    return "text" if _is_text(head) else "unknown"


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8, which may be cut within a character at the end, without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0e-\x1f]", text)
