"""What a JPEG's application segments hold (JFIF, EXIF, XMP part 3, ICC.1 annex B, Photoshop), and how they are
written."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from workers.images.metadata import MANIFEST_LOST, Blocks, Capacity, Density, Publishable
from workers.images.metadata.xmp import has_gain_map

__all__ = ["APP1", "CAPACITY", "COMMENT", "EXIF_HEADER", "Found", "with_metadata"]

APP0, APP1, APP2, APP11, APP13, APP14, COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xFE
EXIF_HEADER: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_EXTENSION: Final = b"http://ns.adobe.com/xmp/extension/\0"
_ICC: Final = b"ICC_PROFILE\0"
_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_JFIF: Final = b"JFIF\0"
_GAIN_MAPS: Final = (b"urn:iso:std:iso:ts:21496:-1", b"http://ns.apple.com/HDRGainMap")
_MAX_BODY: Final = 65_533
CAPACITY: Final = Capacity(_MAX_BODY - len(EXIF_HEADER), _MAX_BODY - len(_XMP), has_xmp_extension=True)
_JFIF_BYTES: Final = 14  # without a thumbnail
_UNITS: Final = ("aspect", "inch", "cm")
_MAX_COMMENTS: Final = 16
_BOX_HEAD: Final = 8
_PIECE_HEAD: Final = 8  # "JP", the box's number, the piece's number


class Found:
    """Takes in the segments before the picture, in their order."""

    def __init__(self) -> None:
        self._exif: list[bytes] = []
        self._xmp: list[bytes] = []
        self._xmp_extension: list[bytes] = []
        self._photoshop: list[bytes] = []
        self._icc: dict[int, bytes] = {}
        self._icc_parts = 0
        self._boxes: dict[int, bytearray] = {}
        self._comments: list[bytes] = []
        self._density: Density | None = None
        self._gain_map = False
        self._lost: list[str] = []

    def note(self, marker: int, body: bytes) -> None:
        """One segment's marker and body."""
        if marker == APP1 and body.startswith(EXIF_HEADER):
            self._exif.append(body[len(EXIF_HEADER) :])
        elif marker == APP1 and body.startswith(_XMP):
            self._xmp.append(body[len(_XMP) :])
        elif marker == APP1 and body.startswith(_XMP_EXTENSION):
            self._xmp_extension.append(body)
        elif marker == APP2 and body.startswith(_ICC) and len(body) > 14:
            self._icc_parts = body[13]
            self._icc.setdefault(body[12], body[14:])
        elif marker == APP13 and body.startswith(_PHOTOSHOP):
            self._photoshop.append(body[len(_PHOTOSHOP) :])
        elif marker == COMMENT:
            self._comments.append(body)
        elif marker == APP11:
            self._note_box(body)
            self._note_other(marker, body)
        elif marker == APP0 and body.startswith(_JFIF) and len(body) >= 12:
            self._note_jfif(body)
        elif marker != APP14:
            self._note_other(marker, body)

    def _note_jfif(self, body: bytes) -> None:
        unit, across, down = struct.unpack_from(">BHH", body, 7)
        if len(body) > _JFIF_BYTES:
            self._lose("JFIF thumbnail")
        if unit < len(_UNITS) and across and down:
            self._density = Density(across, down, _UNITS[unit])  # type: ignore[arg-type]

    def _note_box(self, body: bytes) -> None:
        """A piece of a box; each repeats the box's head, of which the first one is kept."""
        if body[:2] != b"JP" or len(body) < _PIECE_HEAD + _BOX_HEAD:
            return
        number = int.from_bytes(body[2:4], "big")
        if number in self._boxes:
            self._boxes[number] += body[_PIECE_HEAD + _BOX_HEAD :]
        else:
            self._boxes[number] = bytearray(body[_PIECE_HEAD:])

    def _note_other(self, marker: int, body: bytes) -> None:
        if marker == APP11 and b"c2pa" in body:
            line = MANIFEST_LOST
        elif marker == APP2 and any(name in body for name in _GAIN_MAPS):
            self._gain_map = True
            return
        elif marker == APP2 and body.startswith(b"MPF\0"):
            return  # lists the pictures that follow, of which the trailer tells
        elif marker == APP0 and body.startswith(b"JFXX\0"):
            line = "JFIF thumbnail"
        else:
            name = body[:16].split(b"\0")[0].decode("ascii", "replace")
            line = f"segment APP{marker - 0xE0} {name if name.isprintable() else ''}".rstrip()
        self._lose(line)

    def _lose(self, line: str) -> None:
        if line not in self._lost and len(self._lost) < 32:
            self._lost.append(line)

    def trailer(self, data: bytes) -> None:
        """What follows the picture: further pictures, or a video."""
        self._gain_map |= any(name in data for name in _GAIN_MAPS)
        self._gain_map |= any(has_gain_map(packet) for packet in self._xmp)
        if self._gain_map:
            self._lost.append("HDR gain map: the published picture is the standard one, without its HDR version")
        elif data.startswith(b"\xff\xd8\xff"):
            self._lost.append("further pictures after the first one")
        elif len(data) > 2 and data.strip(b"\0\r\n\xff"):
            self._lost.append(f"{len(data):,} bytes after the picture")

    def blocks(self) -> Blocks:
        profile = b"".join(self._icc[number] for number in sorted(self._icc)) or None
        if profile and sorted(self._icc) != list(range(1, self._icc_parts + 1)):
            profile = None
            self._lost.append("ICC profile: not all of its parts are there; the picture was read as sRGB")
        if len(self._xmp) > 1:
            self._lost.append("XMP: a second packet")
        boxes = (bytes(box) for box in self._boxes.values() if box[4:8] == b"jumb" and b"c2pa" in box[:64])
        return Blocks(
            exif=b"".join(self._exif) or None,
            xmp=self._xmp[0] if self._xmp else None,
            xmp_extension=tuple(self._xmp_extension),
            photoshop=b"".join(self._photoshop) or None,
            texts=tuple((b"Comment", body) for body in self._comments[:_MAX_COMMENTS]),
            density=self._density,
            profile=profile,
            manifest=next(boxes, None),
            lost=tuple(self._lost),
        )


def with_metadata(data: bytes, carried: Publishable) -> bytes:
    """An encoder's JPEG with metadata put in before all but JFIF's segment, whose density is set."""
    start = 2
    jfif = b""
    if data[2:4] == b"\xff\xe0" and data.startswith(_JFIF, 6):
        start = 4 + int.from_bytes(data[4:6], "big")
        jfif = data[2:start]
    if carried.density:
        jfif = _segment(APP0, _JFIF + b"\1\1" + _jfif_density(carried.density) + b"\0\0")
    return b"".join([data[:2], jfif, *_written(carried), data[start:]])


def _jfif_density(density: Density) -> bytes:
    density = density.per("cm") if density.unit == "metre" else density
    across, down = (min(max(1, value), 0xFFFF) for value in (density.across, density.down))
    return struct.pack(">BHH", _UNITS.index(density.unit), across, down)


def _written(carried: Publishable) -> Iterator[bytes]:
    if carried.exif:
        yield _segment(APP1, EXIF_HEADER + carried.exif)
    if carried.xmp:
        yield _segment(APP1, _XMP + carried.xmp)
    for body in carried.xmp_extension:
        yield _segment(APP1, body)
    resources = carried.photoshop or b""
    space = _MAX_BODY - len(_PHOTOSHOP)
    for at in range(0, len(resources), space):
        yield _segment(APP13, _PHOTOSHOP + resources[at : at + space])
    for text in carried.texts:
        yield _segment(COMMENT, text)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
