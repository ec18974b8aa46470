"""A walk over the segments of a JPEG (ITU-T T.81, annex B), for what Pillow and libjpeg do not bound themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tasks.errors import TruncatedImage, UnsupportedFormat

_START_OF_SCAN = 0xDA
_APP1 = 0xE1
_END_OF_IMAGE = 0xD9
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three are tables, not frames
_READ_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # baseline, extended, progressive; the last two arithmetic
_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # without a length; 00 is an escaped FF out of place

# Entropy-coded data hides 0xFF as FF 00; restart markers and fill bytes may stand in it. Anything else ends it.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)

# A progressive scan of ~100 bytes costs a pass over the whole image (11 ms at 64 megapixels), so a few megabytes could
# occupy a thread for hours. Encoders write about ten scans, the most elaborate optimisers about sixty.
MAX_SCANS = 128
MAX_SCAN_PIXELS = 2_000_000_000  # scans × pixels: the usual ten scans at 200 megapixels
# Pillow joins EXIF segments by repeated copying: 61 MB of them took a minute. The standard allows one.
MAX_EXIF_SEGMENTS = 16
# Pillow keeps every segment as a Python object; a complete ICC profile takes at most 255 of them.
MAX_SEGMENTS = 4096
# Pillow reads bytes between segments one by one. Some cameras pad a little.
_MARKER = re.compile(rb"[^\xff]{0,256}\xff{1,256}([^\xff])", re.DOTALL)


class Frame(NamedTuple):
    width: int
    height: int
    components: int


def frame_header(data: bytes) -> Frame:
    """The first frame header.

    Raises:
        TruncatedImage: there is none before the image data.
        UnsupportedFormat: 12-bit, lossless, hierarchical, or with a number of components that has no colour meaning.
    """
    for marker, start, end in _segments(data):
        if marker in _START_OF_FRAME:
            return _parse_frame(marker, data[start:end])
        if marker == _START_OF_SCAN:
            break
    raise TruncatedImage("The JPEG has no complete header. Export the image again and resubmit it.")


def check_structure(data: bytes, pixels: int) -> None:
    """Make sure that the image of so many ``pixels`` has an end and that its decoding cost is bounded.

    Raises:
        TruncatedImage: the end-of-image marker is missing, or a segment is damaged.
        UnsupportedFormat: more scans or segments than any camera or encoder writes.
    """
    scans = exif_segments = 0
    most_scans = min(MAX_SCANS, max(1, MAX_SCAN_PIXELS // max(pixels, 1)))
    for marker, start, _ in _segments(data):
        scans += marker == _START_OF_SCAN
        exif_segments += marker == _APP1 and data.startswith(b"Exif\0\0", start)
        if scans > most_scans:
            raise UnsupportedFormat(f"The JPEG has more than {most_scans} scans. Save it again as an ordinary JPEG.")
        if exif_segments > MAX_EXIF_SEGMENTS:
            raise UnsupportedFormat("The JPEG has too many EXIF segments. Save it again as an ordinary JPEG.")


def _parse_frame(marker: int, body: bytes) -> Frame:
    if len(body) < 6:
        raise TruncatedImage("The JPEG frame header is incomplete. Export the image again and resubmit it.")
    precision, components = body[0], body[5]
    if marker not in _READ_FRAMES or precision != 8 or components not in (1, 3, 4):
        raise UnsupportedFormat(
            f"This kind of JPEG is not read (frame type {marker - 0xC0}, {precision} bits, {components} components). "
            "Save it as an ordinary 8-bit grey, RGB or CMYK JPEG."
        )
    return Frame(int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big"), components)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end of its body) up to the end-of-image marker; thumbnails and trailers are not entered."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.match(data, position)
        if found is None:
            raise _cut(position)
        marker, start = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return
        end = start if marker in _STANDALONE else _body_end(data, start)
        yield marker, start + 2, end
        position = _scan_end(data, end) if marker == _START_OF_SCAN else end
    raise UnsupportedFormat(f"The JPEG has more than {MAX_SEGMENTS} segments. Save it again as an ordinary JPEG.")


def _body_end(data: bytes, start: int) -> int:
    length = int.from_bytes(data[start : start + 2], "big")
    if length < 2 or start + length > len(data):
        raise _cut(start)
    return start + length


def _scan_end(data: bytes, start: int) -> int:
    found = _AFTER_SCAN.search(data, start)
    if found is None:
        raise _cut(len(data))
    return found.start()


def _cut(position: int) -> TruncatedImage:
    return TruncatedImage(f"The JPEG is cut off or damaged at byte {position}. Upload it again, completely.")
