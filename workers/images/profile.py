"""ICC profiles (ICC.1), looked at before they are given to a library: their length, and the elements that make a small
profile cost hours."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from workers.images.transfer import check_not_hdr

__all__ = ["problem_of"]

# Cameras' and monitors' profiles have some kilobytes, scanners' and printers' with tables a few hundred.
_MAX_BYTES: Final = 1 << 20
_MAX_TAGS: Final = 100
_MAX_CHANNELS: Final = 4
_TABLES: Final = frozenset({b"mft1", b"mft2", b"mAB ", b"mBA "})


def problem_of(profile: bytes) -> str | None:
    """Why a profile is not used; None for one that may be tried.

    Raises:
        UnsupportedFormat: it says that the colours are those of HDR video.
    """
    if len(profile) > _MAX_BYTES:
        return f"longer than {_MAX_BYTES >> 20} MiB"
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return "damaged"
    for name, element in _elements(profile):
        kind = bytes(element[:4])
        if name == b"cicp" and len(element) >= 12:
            check_not_hdr(element[9])
        if kind == b"mpet":
            return "it computes with floating-point elements"
        if kind in _TABLES and max(element[8:10], default=0) > _MAX_CHANNELS:
            return f"a table of more than {_MAX_CHANNELS} channels"
    return None


def _elements(profile: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(profile)
    (count,) = struct.unpack_from(">I", profile, 128)
    for at in range(132, min(132 + 12 * min(count, _MAX_TAGS), len(profile) - 11), 12):
        name, offset, size = struct.unpack_from(">4sII", profile, at)
        yield name, view[offset : offset + size]
