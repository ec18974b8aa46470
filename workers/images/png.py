"""A walk over the chunks of a PNG (third edition): Pillow checks neither the checksums of pixel data nor that the file
has an end, and what it does with text is not bounded by what the text is for."""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

from tasks.errors import AnimatedImage, TruncatedImage, UnsupportedFormat
from workers.images.metadata import Blocks
from workers.images.png_blocks import Found

__all__ = ["Contents", "bit_depth", "read"]

_FIRST_CHUNK = 8
_BIT_DEPTH_AT = 24
# Millions of empty chunks would turn 64 MiB into a gigabyte of Python's objects; files have about twenty. Pixel data
# has its own bound: at the 8 KiB that libpng writes per chunk it is half a gigabyte.
MAX_CHUNKS = 256
MAX_PIXEL_CHUNKS = 65_536
_PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")
_PICTURE_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IEND"})
_COLOUR_CHUNKS: Final = frozenset({b"cICP", b"sRGB", b"gAMA", b"cHRM"})


class Contents(NamedTuple):
    """A PNG taken apart.

    Attributes:
        picture: the same file with nothing but pixels, palette and transparency: what a decoder is given.
        blocks: what was left out of it.
        colours: bodies of cICP, sRGB, gAMA and cHRM, by name.
    """

    picture: bytes
    blocks: Blocks
    colours: dict[bytes, bytes]


def bit_depth(data: bytes) -> int:
    """Bits per sample or palette index, from IHDR: 1, 2, 4, 8 or 16."""
    return data[_BIT_DEPTH_AT]


def read(data: bytes) -> Contents:
    """Take a PNG apart; every chunk's checksum is looked at, up to IEND (section 5).

    Raises:
        TruncatedImage: a chunk is cut off or damaged, or IEND is missing.
        UnsupportedFormat: more chunks than any encoder writes.
        AnimatedImage: it has more than one frame.
    """
    view = memoryview(data)
    position, others = _FIRST_CHUNK, 0
    kept: list[bytes | memoryview] = [data[:_FIRST_CHUNK]]
    found, colours = Found(), dict[bytes, bytes]()
    for _ in range(MAX_PIXEL_CHUNKS):
        body_end = _checked(view, position)
        kind = data[position + 4 : position + 8]
        if kind == b"IDAT":
            kept.append(view[position : body_end + 4])
            position = body_end + 4
            continue
        if kind == b"IHDR" and position > _FIRST_CHUNK:
            raise TruncatedImage("The PNG states two sizes. Export the image again and resubmit it.")
        if kind in _PICTURE_CHUNKS:
            kept.append(view[position : body_end + 4])
        elif kind in _COLOUR_CHUNKS:
            colours.setdefault(kind, bytes(view[position + 8 : body_end]))
        elif kind == b"acTL":
            _refuse_animation(view[position + 8 : body_end])
        elif kind not in _PIXEL_CHUNKS:
            found.note(kind, bytes(view[position + 8 : body_end]))
        if kind == b"IEND":
            found.trailer(len(data) - body_end - 4)
            return Contents(b"".join(kept), found.blocks(), colours)
        others += kind not in _PIXEL_CHUNKS
        if others > MAX_CHUNKS:
            break
        position = body_end + 4
    raise UnsupportedFormat("The PNG has more chunks than any encoder writes. Save it again as an ordinary PNG.")


def _checked(view: memoryview, position: int) -> int:
    """Where the body of the chunk at `position` ends."""
    body_end = position + 8 + int.from_bytes(view[position : position + 4], "big")
    if body_end + 4 > len(view):
        raise TruncatedImage(f"The PNG is cut off in the chunk at byte {position}. Upload it again, completely.")
    (stated,) = struct.unpack(">I", view[body_end : body_end + 4])
    if zlib.crc32(view[position + 4 : body_end]) != stated:
        raise TruncatedImage(f"The PNG is damaged at byte {position} (checksum). Export it again and resubmit it.")
    return body_end


def _refuse_animation(body: memoryview) -> None:
    if len(body) >= 4 and int.from_bytes(body[:4], "big") > 1:
        raise AnimatedImage("This PNG is animated. Send one frame as a still image.")
