"""The C2PA manifest store that an image file carries (C2PA 2.2, appendix A): JPEG, PNG and WebP."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from tasks.formats import HEAD_BYTES, format_of

__all__ = ["LOST", "manifest_store_of"]

# How the readers of metadata begin what they say of a manifest.
LOST: Final = "C2PA manifest"
_MOST_PARTS: Final = 4_096
_APP11: Final = 0xEB
_BOX_HEAD: Final = 8
_PIECE_HEAD: Final = 8  # "JP", the box's number, the piece's number


def manifest_store_of(data: bytes) -> bytes | None:
    """The store as it is in the file, unchecked; None where there is none, or the file is of another format."""
    known = format_of(data[:HEAD_BYTES])
    reader = {"image/jpeg": _of_jpeg, "image/png": _of_png, "image/webp": _of_webp}.get(
        known.content_type if known else ""
    )
    return reader(data) if reader else None


def _of_jpeg(data: bytes) -> bytes | None:
    """Pieces of a box, in order; each repeats the box's head, of which the first one is kept."""
    boxes: dict[int, bytearray] = {}
    for marker, body in _segments(data):
        if marker != _APP11 or body[:2] != b"JP" or len(body) < _PIECE_HEAD + _BOX_HEAD:
            continue
        number = int.from_bytes(body[2:4], "big")
        if number in boxes:
            boxes[number] += body[_PIECE_HEAD + _BOX_HEAD :]
        else:
            boxes[number] = bytearray(body[_PIECE_HEAD:])
    return next((bytes(box) for box in boxes.values() if box[4:8] == b"jumb" and b"c2pa" in box[:64]), None)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of what is before the picture's data."""
    position = 2
    for _ in range(_MOST_PARTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            return
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xFF:  # filling
            position += 1
            continue
        if marker in (0xDA, 0xD9) or size < 2:
            return
        yield marker, data[position + 4 : position + 2 + size]
        position += 2 + size


def _of_png(data: bytes) -> bytes | None:
    position = 8
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            return None
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"caBX":
            return data[position + 8 : position + 8 + size]
        position += 12 + size
    return None


def _of_webp(data: bytes) -> bytes | None:
    position = 12
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            return None
        kind, size = struct.unpack_from("<4sI", data, position)
        if kind == b"C2PA":
            return data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    return None


_READERS: Final = {"image/jpeg": _of_jpeg, "image/png": _of_png, "image/webp": _of_webp}
