"""A walk over the chunks of a WebP (RFC 9649): what it carries beside its picture."""

from __future__ import annotations

from typing import Final

from workers.images.metadata import MANIFEST_LOST, Blocks

__all__ = ["read"]

_MAX_CHUNKS: Final = 256
_PICTURE: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})


def read(data: bytes) -> Blocks:
    """EXIF, XMP and profile; a damaged end is the decoder's to judge."""
    found: dict[bytes, bytes] = {}
    lost: list[str] = []
    position = 12
    for _ in range(_MAX_CHUNKS):
        kind = data[position : position + 4]
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        if len(kind) < 4 or start + size > len(data):
            break
        if kind in (b"EXIF", b"XMP ", b"ICCP", b"C2PA"):
            found.setdefault(kind, data[start : start + size])
        elif kind not in _PICTURE:
            lost.append(f"chunk {kind.decode('ascii', 'replace')}")
        position = start + size + size % 2
    trailing = len(data) - 8 - int.from_bytes(data[4:8], "little")
    if trailing > 1:
        lost.append(f"{trailing:,} bytes after the picture")
    manifest = found.get(b"C2PA")
    if manifest is not None:
        lost.insert(0, MANIFEST_LOST)
    exif = found.get(b"EXIF")
    return Blocks(
        exif=exif.removeprefix(b"Exif\0\0") if exif else None,
        xmp=found.get(b"XMP "),
        profile=found.get(b"ICCP"),
        manifest=manifest,
        lost=tuple(lost[:32]),
    )
