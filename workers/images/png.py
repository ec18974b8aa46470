"""A walk over the chunks of a PNG: Pillow checks neither the checksums of pixel data nor that the file has an end."""

from __future__ import annotations

import struct
import zlib

from tasks.errors import TruncatedImage, UnsupportedFormat

_FIRST_CHUNK = 8
_BIT_DEPTH_AT = 24
# Pillow keeps unknown chunks as Python objects (millions of empty ones would turn 64 MiB into a gigabyte) and inflates
# each compressed one up to 1 MiB; files have about twenty. Pixel data has its own bound: at the 8 KiB that libpng
# writes per chunk it is half a gigabyte.
MAX_CHUNKS = 256
MAX_PIXEL_CHUNKS = 65_536
_PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")


def bit_depth(data: bytes) -> int:
    """Bits per sample or palette index, from IHDR: 1, 2, 4, 8 or 16."""
    return data[_BIT_DEPTH_AT]


def check_structure(data: bytes) -> None:
    """Check every chunk's checksum up to IEND (PNG specification, section 5).

    Raises:
        TruncatedImage: a chunk is cut off or damaged, or IEND is missing.
        UnsupportedFormat: more chunks than any encoder writes.
    """
    view = memoryview(data)
    position = _FIRST_CHUNK
    others = 0
    for _ in range(MAX_PIXEL_CHUNKS):
        body_end = position + 8 + int.from_bytes(view[position : position + 4], "big")
        if body_end + 4 > len(data):
            raise TruncatedImage(f"The PNG is cut off in the chunk at byte {position}. Upload it again, completely.")
        (stated,) = struct.unpack(">I", view[body_end : body_end + 4])
        if zlib.crc32(view[position + 4 : body_end]) != stated:
            raise TruncatedImage(f"The PNG is damaged at byte {position} (checksum). Export it again and resubmit it.")
        kind = bytes(view[position + 4 : position + 8])
        if kind == b"IEND":
            return
        others += kind not in _PIXEL_CHUNKS
        if others > MAX_CHUNKS:
            break
        position = body_end + 4
    raise UnsupportedFormat("The PNG has more chunks than any encoder writes. Save it again as an ordinary PNG.")
