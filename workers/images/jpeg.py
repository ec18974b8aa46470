"""A walk over the segments of a JPEG (ITU-T T.81, annex B): its structure, bounded where Pillow and libjpeg do not
bound it, and what it carries beside its picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tasks.errors import TruncatedImage, UnsupportedFormat
from workers.images.jpeg_blocks import APP1, COMMENT, EXIF_HEADER, Found
from workers.images.metadata import Blocks

__all__ = ["Contents", "Frame", "frame_header", "read"]

_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three are tables, not frames
_READ_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # baseline, extended, progressive; the last two arithmetic
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xCA})
_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # without a length; 00 is an escaped FF out of place
# Of the application's segments, a decoder needs these two, JFIF and Adobe, to know what the colours are.
_NEEDED: Final = frozenset({0xE0, 0xEE})

# Entropy-coded data hides 0xFF as FF 00; restart markers and fill bytes may stand in it. Anything else ends it.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)

# A progressive scan of ~100 bytes costs a pass over the whole image (11 ms at 64 megapixels), so a few megabytes could
# occupy a thread for hours. Encoders write about ten scans, the most elaborate optimisers about sixty.
MAX_SCANS = 128
MAX_SCAN_PIXELS = 2_000_000_000  # scans × pixels: the usual ten scans at 200 megapixels
# The standard allows one; some programs write a long block in several.
MAX_EXIF_SEGMENTS = 16
# A complete ICC profile takes at most 255 of them.
MAX_SEGMENTS = 4096
# Some cameras pad a little between segments.
_MARKER = re.compile(rb"[^\xff]{0,256}\xff{1,256}([^\xff])", re.DOTALL)


class Frame(NamedTuple):
    width: int
    height: int
    components: int
    progressive: bool


class Contents(NamedTuple):
    """A JPEG taken apart.

    Attributes:
        picture: the same file without metadata and profile, and with an end: what a decoder is given.
        blocks: what was left out of it.
        complete: False where the end-of-image marker was missing: whether the pixels are all there, only decoding
            tells (see :func:`with_other_end`).
    """

    picture: bytes
    blocks: Blocks
    complete: bool


class _Segment(NamedTuple):
    """``start`` to ``end`` is the body, after its length; of a scan, its head."""

    marker: int
    start: int
    end: int


def frame_header(data: bytes) -> Frame:
    """The first frame header.

    Raises:
        TruncatedImage: there is none before the image data.
        UnsupportedFormat: 12-bit, lossless, hierarchical, or with a number of components that has no colour meaning.
    """
    for segment in _segments(data):
        if segment.marker in _START_OF_FRAME:
            return _parse_frame(segment.marker, data[segment.start : segment.end])
        if segment.marker == _START_OF_SCAN:
            break
    raise TruncatedImage("The JPEG has no complete header. Export the image again and resubmit it.")


def read(data: bytes, pixels: int) -> Contents:
    """Take the JPEG of an image of so many ``pixels`` apart, and make sure that its decoding cost is bounded.

    Raises:
        TruncatedImage: a segment is damaged, or there is no image data.
        UnsupportedFormat: more scans or segments than any camera or encoder writes.
    """
    segments = list(_segments(data))
    scans = [segment for segment in segments if segment.marker == _START_OF_SCAN]
    _check_bounds(data, segments, len(scans), pixels)
    if not scans:
        raise _cut(len(data))
    found, kept = Found(), [data[:2]]
    for marker, start, end in segments[: segments.index(scans[0])]:
        if 0xE0 <= marker <= 0xEF or marker == COMMENT:
            found.note(marker, data[start:end])
        if marker in _NEEDED or not (marker in _STANDALONE or 0xE0 <= marker <= 0xEF or marker == COMMENT):
            kept += [bytes((0xFF, marker)), data[start - 2 : end]]
    last = segments[-1]
    stop = _scan_end(data, last.end) if last.marker == _START_OF_SCAN else last.end
    ending = _MARKER.match(data, stop)
    complete = ending is not None and ending[1][0] == _END_OF_IMAGE
    found.trailer(data[ending.end() :] if ending else b"")
    picture = b"".join([*kept, data[scans[0].start - 4 : stop], b"\xff\xd9"])
    return Contents(picture, found.blocks(), complete)


def with_other_end(picture: bytes) -> tuple[bytes, bytes]:
    """Two files that differ in what follows the last byte of entropy-coded data: they show the same picture only where
    no pixel needed more."""
    return picture[:-2] + bytes(64) + b"\xff\xd9", picture[:-2] + b"\x55" * 64 + b"\xff\xd9"


def _check_bounds(data: bytes, segments: list[_Segment], scans: int, pixels: int) -> None:
    most_scans = min(MAX_SCANS, max(1, MAX_SCAN_PIXELS // max(pixels, 1)))
    if scans > most_scans:
        raise UnsupportedFormat(f"The JPEG has more than {most_scans} scans. Save it again as an ordinary JPEG.")
    if sum(s.marker == APP1 and data.startswith(EXIF_HEADER, s.start) for s in segments) > MAX_EXIF_SEGMENTS:
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
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    return Frame(width, height, components, marker in _PROGRESSIVE_FRAMES)


def _segments(data: bytes) -> Iterator[_Segment]:
    """Up to the end-of-image marker, or the end of the data of a scan; thumbnails and trailers are not entered."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.match(data, position)
        if found is None:
            raise _cut(position)
        marker, start = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return
        end = start if marker in _STANDALONE else _body_end(data, start)
        yield _Segment(marker, start + 2, end)
        position = _scan_end(data, end) if marker == _START_OF_SCAN else end
        if position >= len(data) - 1 and marker == _START_OF_SCAN:
            return
    raise UnsupportedFormat(f"The JPEG has more than {MAX_SEGMENTS} segments. Save it again as an ordinary JPEG.")


def _body_end(data: bytes, start: int) -> int:
    length = int.from_bytes(data[start : start + 2], "big")
    if length < 2 or start + length > len(data):
        raise _cut(start)
    return start + length


def _scan_end(data: bytes, start: int) -> int:
    """Where the entropy-coded data ends; half a marker at the end of the file is none of it."""
    found = _AFTER_SCAN.search(data, start)
    return found.start() if found else len(data) - data.endswith(b"\xff")


def _cut(position: int) -> TruncatedImage:
    return TruncatedImage(f"The JPEG is cut off or damaged at byte {position}. Upload it again, completely.")
