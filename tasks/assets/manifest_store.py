"""C2PA manifest stores as bytes: boxes of JUMBF (ISO 19566-5), as far as manifests are told apart.

A store is a superbox with a description box and one superbox for each manifest, of which the last one is active (C2PA
2.2, section 11.1.4). Nothing is verified here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["active_id", "active_only"]

_HEAD: Final = 8
_SUPERBOX: Final = b"jumb"
_DESCRIPTION: Final = b"jumd"
_STORE: Final = "c2pa"
_MOST_BOXES: Final = 256
_LABEL: Final = re.compile(r"[\x21-\x7e]{1,256}")


def active_id(store: bytes) -> str | None:
    """The identifier (label) of the active manifest; None for what is no manifest store."""
    found = _manifests(store)
    return found[-1][0] if found else None


def active_only(store: bytes) -> bytes:
    """A store that holds the active manifest alone. What it refers to in the others cannot be checked by it."""
    found, boxes = _manifests(store), list(_boxes(store[_HEAD:]))
    if not found:
        return store
    content = boxes[0][1] + found[-1][1]
    return struct.pack(">I", _HEAD + len(content)) + _SUPERBOX + content


def _manifests(store: bytes) -> list[tuple[str, bytes]]:
    """Identifier and box of each manifest."""
    if _label(store) != _STORE:
        return []
    found = [(_label(box), box) for kind, box in _boxes(store[_HEAD:]) if kind == _SUPERBOX]
    return [(label, box) for label, box in found if label and _LABEL.fullmatch(label)]


def _label(box: bytes) -> str | None:
    """What a superbox's description calls it: 16 bytes of type, one of switches, and text that ends with a zero."""
    if box[4:_HEAD] != _SUPERBOX:
        return None
    kind, description = next(_boxes(box[_HEAD:]), (b"", b""))
    text, end, _ = description[_HEAD + 17 :].partition(b"\0")
    return text.decode("ascii", "replace") if kind == _DESCRIPTION and end else None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and bytes of each box; ends at the first that is damaged."""
    position = 0
    for _ in range(_MOST_BOXES):
        size = int.from_bytes(data[position : position + 4], "big")
        if size < _HEAD or position + size > len(data):
            return
        yield data[position + 4 : position + _HEAD], data[position : position + size]
        position += size
