"""EXIF blocks (TIFF 6.0, CIPA DC-008), read and written entry by entry: values travel as bytes with their own type.

No value is interpreted, so nothing an owner wrote changes: not its encoding, not its type, not a number's notation. No
library does that: those that write EXIF decode every value first, and lose what they do not understand. What is left
out, is named.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

__all__ = ["EXIF", "GPS", "INTEROP", "MAIN", "Directories", "Entry", "orientation_of", "parse", "write"]

# The directories that are carried, by the tag of the entry that points to them; MAIN is the first one of the block.
MAIN: Final = 0
EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
_CHILDREN: Final = {MAIN: (EXIF, GPS), EXIF: (INTEROP,)}

ORIENTATION: Final = 0x0112
MAKER_NOTE: Final = 0x927C
_SHORT, _LONG, _RATIONAL, _IFD = 3, 4, 5, 13
# Bytes of one value, by type; 129 is EXIF 3.0's UTF-8.
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_WHOLE: Final = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}

# Cameras write about a hundred entries. Entries may share bytes, so that few could stand for gigabytes: all values
# together are no longer than the block.
_MAX_ENTRIES: Final = 2048
# A picture within a value is a preview of the unprotected original.
_PICTURE: Final = b"\xff\xd8\xff"
_PICTURE_LEAST_BYTES: Final = 512

# Offsets and sizes of pixel data, pictures, other directories: of parts of a file that are not written again.
_STRUCTURE: Final = frozenset({0x0111, 0x0117, 0x0120, 0x0121, 0x0144, 0x0145, 0x014A, 0x015B, *range(0x0200, 0x020A)})
# Other metadata within EXIF; of a TIFF, they are read by themselves.
XMP, IPTC, PHOTOSHOP, PROFILE, CREDENTIALS = 0x02BC, 0x83BB, 0x8649, 0x8773, 0xCD41
_OTHERS: Final = {
    XMP: "XMP",
    IPTC: "IPTC",
    PHOTOSHOP: "Photoshop resources",
    PROFILE: "ICC profile",
    CREDENTIALS: "C2PA manifest",
}
# How a TIFF stores its pixels, which the published file does otherwise.
PIXEL_LAYOUT: Final = frozenset(
    {0xFE, 0xFF, *range(0x100, 0x104), 0x106, 0x10A, 0x115, 0x116, 0x11C, 0x13D, *range(0x140, 0x144), 0x152, 0x153}
    | set(range(0x211, 0x215))
)


class Entry(NamedTuple):
    """``value`` is as stored, ``length`` values of a ``type``; ``offset`` is its place, 0 for a new entry."""

    tag: int
    type: int
    length: int
    value: bytes
    offset: int = 0


@dataclass(frozen=True)
class Directories:
    """An EXIF block taken apart.

    Attributes:
        order: ``<`` or ``>``, the byte order.
        entries: by directory (MAIN, EXIF, GPS, INTEROP), without those that point to others.
        lost: a line for each entry that could not be read, or may not be published.
    """

    order: str
    entries: dict[int, list[Entry]]
    lost: list[str] = field(default_factory=list)

    def changed(self, change: Callable[[int, Entry], Entry | None]) -> Directories:
        """With what `change` makes of the entries of each directory; None drops one."""
        kept = {d: [e for old in es if (e := change(d, old)) is not None] for d, es in self.entries.items()}
        return replace(self, entries=kept)

    def ratio(self, tag: int) -> float | None:
        """A RATIONAL of the first directory."""
        for entry in self.entries[MAIN]:
            if entry.tag == tag and entry.type == _RATIONAL and entry.length == 1:
                above, below = struct.unpack(self.order + "LL", entry.value)
                return above / below if below else None
        return None

    def short(self, value: int) -> bytes:
        """A SHORT in this block's byte order."""
        return struct.pack(self.order + "H", value)


def orientation_of(block: bytes) -> int | None:
    """The number from 1 to 8 in the first directory, whatever state the rest of the block is in; None without one."""
    order = _order(block)
    if order is None:
        return None
    for tag, kind, count, at in _table(block, order, _first_directory(block, order)):
        if tag == ORIENTATION and kind in _WHOLE and count == 1:
            (number,) = struct.unpack_from(order + _WHOLE[kind], block, at)
            return number if 1 <= number <= 8 else None
    return None


def numbers_of(block: bytes, tags: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """The whole numbers, four at most of each, that the first directory has for some tags."""
    order, found = _order(block), dict[int, tuple[int, ...]]()
    if order is None:
        return found
    for tag, kind, count, at in _table(block, order, _first_directory(block, order)):
        if tag in tags and kind in _WHOLE and count:
            fits = _SIZES[kind] * count <= 4
            place = at if fits else struct.unpack_from(order + "L", block, at)[0]
            if place + _SIZES[kind] * min(count, 4) <= len(block):
                found[tag] = struct.unpack_from(f"{order}{min(count, 4)}{_WHOLE[kind]}", block, place)
    return found


def with_orientation(data: bytes, number: int) -> bytes:
    """A TIFF file whose first directory says this orientation, if it says any."""
    order = _order(data)
    if order is None:
        return data
    for tag, kind, count, at in _table(data, order, _first_directory(data, order)):
        if tag == ORIENTATION and kind in _WHOLE and count == 1:
            value = struct.pack(order + _WHOLE[kind], number)
            return data[:at] + value + data[at + len(value) :]
    return data


def parse(block: bytes, others: dict[int, bytes] | None = None) -> Directories | None:
    """Take a block apart; None when it is not one. Damage loses the entries it touches, and no others.

    Args:
        others: takes XMP, IPTC, Photoshop's resources, profile and C2PA's manifest, by tag, which are lost without it.
    """
    order = _order(block)
    if order is None:
        return None
    found = Directories(order, {})
    reader = _Reader(block, found, others)
    reader.read(MAIN, _first_directory(block, order))
    return found


class _Reader:
    def __init__(self, block: bytes, found: Directories, others: dict[int, bytes] | None) -> None:
        self._block = block
        self._others = others
        self._found = found
        self._seen: set[int] = set()
        self._left, self._entries = len(block), _MAX_ENTRIES

    def read(self, directory: int, start: int) -> None:
        """The directory at `start`, and those it points to; each place is read once, so that none can go in circles."""
        if start in self._seen or not 8 <= start <= len(self._block) - 2:
            self._found.lost.append(f"EXIF directory {_name(directory)}: outside of its block")
            return
        self._seen.add(start)
        kept = self._found.entries.setdefault(directory, [])
        children: list[tuple[int, int]] = []
        (stated,) = struct.unpack_from(self._found.order + "H", self._block, start)
        present = 0
        for tag, kind, count, at in _table(self._block, self._found.order, start):
            present += 1
            if tag in _CHILDREN.get(directory, ()) and kind in (_LONG, _IFD) and count == 1:
                children.append((tag, struct.unpack_from(self._found.order + "L", self._block, at)[0]))
            elif (entry := self._entry(directory, tag, kind, count, at)) is not None:
                kept.append(entry)
        if present < stated:
            self._found.lost.append(f"EXIF directory {_name(directory)}: cut off after {present} of {stated} entries")
        elif directory == MAIN and self._points_on(start + 2 + 12 * stated):
            self._found.lost.append("EXIF thumbnail")
        for tag, child in children:
            self.read(tag, child)

    def _entry(self, directory: int, tag: int, kind: int, count: int, at: int) -> Entry | None:
        size = _SIZES.get(kind, 0) * count
        offset = at if size <= 4 else struct.unpack_from(self._found.order + "L", self._block, at)[0]
        problem = self._problem(directory, tag, size, offset)
        if problem is not None:
            if directory == MAIN and tag in _OTHERS and self._others is not None:
                self._others.setdefault(tag, self._block[offset : offset + size])
            elif problem:
                self._found.lost.append(f"EXIF 0x{tag:04x}: {problem}")
            return None
        self._left, self._entries = self._left - size, self._entries - 1
        return Entry(tag, kind, count, self._block[offset : offset + size], offset)

    def _problem(self, directory: int, tag: int, size: int, offset: int) -> str | None:
        """Why an entry is left out; empty where that need not be said."""
        if directory == MAIN and tag in _STRUCTURE:
            return ""
        if directory == MAIN and tag in _OTHERS:
            return f"{_OTHERS[tag]} within EXIF"
        if not size or offset + size > len(self._block):
            return "its value lies outside of the block" if size else "of no known type, or without a value"
        if size > self._left or not self._entries:
            return "more entries, or longer ones, than the block can hold"
        if size >= _PICTURE_LEAST_BYTES and self._block.find(_PICTURE, offset, offset + size) >= 0:
            return "holds a picture of the original"
        return None

    def _points_on(self, at: int) -> bool:
        return any(self._block[at : at + 4])


def write(directories: Directories, limit: int) -> bytes | None:
    """The block anew, at most `limit` bytes: the longest values are lost until it is. None without an entry.

    A maker note stays at its old place within the block, for many makers' notes count their offsets from its start.
    """
    while any(directories.entries.values()):
        block = _laid_out(directories)
        if len(block) <= limit:
            return block
        directories = _shortened(directories, len(block) - limit)
    return None


def _shortened(directories: Directories, excess: int) -> Directories:
    """Without the longest values, which are so many bytes or more, and noted as lost."""
    entries = [entry for some in directories.entries.values() for entry in some]
    left_out = set[int]()
    for entry in sorted(entries, key=lambda entry: len(entry.value), reverse=True):
        if excess <= 0:
            break
        directories.lost.append(f"EXIF 0x{entry.tag:04x}: too long for this format ({len(entry.value):,} bytes)")
        left_out.add(id(entry))
        excess -= len(entry.value)
    return directories.changed(lambda _, entry: None if id(entry) in left_out else entry)


class _Layout:
    """Places, one after the other, around one that is taken."""

    def __init__(self, taken: range) -> None:
        self._next, self._taken = 8, taken

    def place(self, size: int) -> int:
        start = self._next + self._next % 2
        if start < self._taken.stop and start + size > self._taken.start:
            start = self._taken.stop + self._taken.stop % 2
        self._next = start + size
        return start


def _laid_out(directories: Directories) -> bytes:
    note = next((e for e in directories.entries.get(EXIF, ()) if e.tag == MAKER_NOTE and len(e.value) > 4), None)
    total = sum(len(e.value) + 16 for es in directories.entries.values() for e in es)
    # Kept in place, unless the block is that of a whole TIFF, where the note may lie behind all pixels.
    fixed = note if note and 8 + 2 + 12 * len(directories.entries[MAIN]) <= note.offset <= 2 * total + 1024 else None
    layout = _Layout(range(fixed.offset, fixed.offset + len(fixed.value)) if fixed else range(0))
    rows = {d: _with_children(d, directories) for d in (MAIN, EXIF, INTEROP, GPS) if _wanted(d, directories)}
    places = {d: layout.place(6 + 12 * len(entries)) for d, entries in rows.items()}
    parts: dict[int, bytes] = {0: (b"II*\0" if directories.order == "<" else b"MM\0*") + b"\0\0\0\0"}
    for directory, entries in rows.items():
        table = [struct.pack(directories.order + "H", len(entries))]
        for entry in entries:
            value = entry.value
            if entry.tag in places and not value:
                value = struct.pack(directories.order + "L", places[entry.tag])
            elif len(value) > 4:
                start = entry.offset if entry is fixed else layout.place(len(value))
                parts[start] = value
                value = struct.pack(directories.order + "L", start)
            table.append(
                struct.pack(directories.order + "HHL", entry.tag, entry.type, entry.length) + value.ljust(4, b"\0")
            )
        parts[places[directory]] = b"".join(table) + bytes(4)
    parts[0] = parts[0][:4] + struct.pack(directories.order + "L", places[MAIN])
    block = bytearray(max(start + len(part) for start, part in parts.items()))
    for start, part in parts.items():
        block[start : start + len(part)] = part
    return bytes(block)


def _wanted(directory: int, directories: Directories) -> bool:
    """Whether a directory has entries, or leads to one that has."""
    children = _CHILDREN.get(directory, ())
    return bool(
        directory == MAIN or directories.entries.get(directory) or any(_wanted(c, directories) for c in children)
    )


def _with_children(directory: int, directories: Directories) -> list[Entry]:
    """The entries in the order of their tags, with those that point to other directories; these have no value yet."""
    pointers = [Entry(c, _LONG, 1, b"") for c in _CHILDREN.get(directory, ()) if _wanted(c, directories)]
    return sorted([*directories.entries.get(directory, []), *pointers], key=lambda entry: entry.tag)


def _order(block: bytes) -> str | None:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4]) if len(block) >= 8 else None


def _first_directory(block: bytes, order: str) -> int:
    (start,) = struct.unpack_from(order + "L", block, 4)
    return int(start)


def _table(block: bytes, order: str, start: int) -> Iterator[tuple[int, int, int, int]]:
    """(tag, type, count, place of value or offset) of the entries that lie within the block."""
    if start > len(block) - 2:
        return
    (stated,) = struct.unpack_from(order + "H", block, start)
    for at in range(start + 2, min(start + 2 + 12 * stated, len(block) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHL", block, at)
        yield tag, kind, count, at + 8


def _name(directory: int) -> str:
    return {MAIN: "0", EXIF: "Exif", GPS: "GPS", INTEROP: "Interoperability"}[directory]
