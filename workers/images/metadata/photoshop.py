"""Photoshop's image resources (APP13), of which one is IPTC's IIM; carried as bytes, resource by resource."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Set
from typing import Final, NamedTuple

__all__ = ["IPTC", "Resources", "cleaned", "copies", "resource", "rights_only"]

IPTC: Final = 0x0404
_COPYRIGHT_FLAG, _URL = 0x040A, 0x040B
_SIGNATURES: Final = frozenset({b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR"})
_MAX_RESOURCES: Final = 1024
# Of all IPTC resources together; a picture has about twenty.
_MAX_DATA_SETS: Final = 1 << 16
# What a file carries in another place.
_COPIES: Final = {0x040F: "ICC profile", 0x0422: "EXIF", 0x0423: "EXIF", 0x0424: "XMP"}
_THUMBNAILS: Final = (0x0409, 0x040C)

# IPTC's IIM (version 4.2): (record, data set). Coded character set, record version; by-line and its title, credit,
# source, copyright notice, contact, special instructions.
_RIGHTS: Final = frozenset({(1, 90), (2, 0), (2, 80), (2, 85), (2, 110), (2, 115), (2, 116), (2, 118), (2, 40)})
_FORM: Final = frozenset({(1, 90), (2, 0)})


class _Resource(NamedTuple):
    number: int
    data: bytes
    whole: bytes  # with its head and padding


class Resources(NamedTuple):
    """``kept`` is a sequence of resources, None when there is none; ``lost`` says what was left out."""

    kept: bytes | None
    lost: list[str]


def resource(number: int, data: bytes) -> bytes:
    """One resource without a name."""
    return b"8BIM" + struct.pack(">HHL", number, 0, len(data)) + data + bytes(len(data) % 2)


def copies(block: bytes) -> set[str]:
    """Which of EXIF, XMP and profile there are."""
    return {_COPIES[r.number] for r in _resources(block, []) if r.number in _COPIES}


def cleaned(block: bytes) -> Resources:
    """Without thumbnails, and without copies of EXIF, XMP and profile."""
    lost: list[str] = []
    kept = b"".join(r.whole for r in _resources(block, lost) if r.number not in (*_THUMBNAILS, *_COPIES))
    if any(r.number in _THUMBNAILS for r in _resources(block, [])):
        lost.append("Photoshop thumbnail")
    return Resources(kept or None, lost)


def rights_only(block: bytes) -> Resources:
    """What says whose picture it is, and what may be done with it."""
    lost: list[str] = []
    kept, steps = [], iter(range(_MAX_DATA_SETS))
    for one in _resources(block, lost):
        if one.number in (_COPYRIGHT_FLAG, _URL):
            kept.append(one.whole)
        elif one.number == IPTC and (iptc := _filtered(one.data, _RIGHTS, steps)):
            kept.append(resource(IPTC, iptc))
    if next(steps, None) is None:
        lost.append(f"IPTC: what follows its first {_MAX_DATA_SETS:,} data sets")
    return Resources(b"".join(kept) or None, lost)


def _resources(block: bytes, lost: list[str]) -> Iterator[_Resource]:
    position = 0
    for _ in range(_MAX_RESOURCES):
        if position + 12 > len(block):
            return
        name_bytes = 1 + block[position + 6]
        start = position + 6 + name_bytes + name_bytes % 2 + 4
        size = int.from_bytes(block[start - 4 : start], "big")
        if block[position : position + 4] not in _SIGNATURES or start + size > len(block):
            break
        number = int.from_bytes(block[position + 4 : position + 6], "big")
        end = start + size + size % 2
        yield _Resource(number, block[start : start + size], block[position:end])
        position = end
    lost.append(f"Photoshop resources after byte {position}: damaged, or too many")


def _filtered(iptc: bytes, wanted: Set[tuple[int, int]], steps: Iterator[int]) -> bytes:
    """Some data sets, as bytes, as far as there are steps; empty where none but those of form are left."""
    kept, position, useful = bytearray(), 0, False
    for _ in steps:
        if position + 5 > len(iptc) or iptc[position] != 0x1C:
            break
        data_set = (iptc[position + 1], iptc[position + 2])
        size = int.from_bytes(iptc[position + 3 : position + 5], "big")
        start = position + 5
        if size & 0x8000:  # an extended data set: the size of the size
            start += size & 0x7FFF
            size = int.from_bytes(iptc[position + 5 : start][:8], "big")
        if start + size > len(iptc):
            break
        if data_set in wanted:
            kept += iptc[position : start + size]
            useful |= data_set not in _FORM
        position = start + size
    return bytes(kept) if useful else b""
