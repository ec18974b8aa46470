"""What a GIF holds beside its first picture (GIF89a), found without a Python object for each sub-block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tasks.assets.manifests import MOST_STORE_BYTES
from tasks.errors import UnsupportedFormat
from workers.images import png_blocks
from workers.images.metadata import MANIFEST_LOST, Blocks, xmp

__all__ = ["Contents", "read"]

_HEADER_BYTES, _FLAGS_AT, _HAS_PALETTE, _PALETTE_SIZE = 13, 10, 0x80, 7
_CONTROL, _COMMENT = b"\xf9", b"\xfe"
# An XMP packet of 4 MiB, of which each character is read as a length, has about 100,000; a manifest of 8 MiB a third.
_MOST_SUB_BLOCKS: Final = 1 << 18
# XMP specification, part 3, 1.1.2: the packet is no chain of blocks, and a trailer leads readers of such to its end.
_XMP, _XMP_END = b"!\xff\x0bXMP DataXMP", b"\x01\xff\xfe\xfd"
# C2PA 2.2, appendix A: an application extension, whose sub-blocks follow.
_MANIFEST: Final = b"!\xff\x0bC2PA_GIF\x01\0\0"
# A graphic control extension: one precedes each frame of an animation.
_FRAME: Final = re.compile(rb"(?s)\x21\xf9\x04.{4}\x00")


class Contents(NamedTuple):
    """A GIF taken apart.

    Attributes:
        picture: the same file without what applications wrote before its first picture: what a decoder is given.
        blocks: its comments, its XMP and its manifest.
    """

    picture: bytes
    blocks: Blocks


def read(data: bytes) -> Contents:
    """Take a GIF apart; a damaged picture is the decoder's to judge.

    Raises:
        UnsupportedFormat: more blocks before the picture than any program writes.
    """
    picture, comments = _taken_apart(data)
    texts = ((b"Comment", png_blocks.comment(b"\n".join(comments))),) if comments else ()
    found, manifest = _manifest(data)
    lost = (MANIFEST_LOST,) if found else ()
    further = sum(1 for _ in _FRAME.finditer(data)) - 1
    if further > 0:
        lost = (*lost, f"{further} further frame{'s' if further > 1 else ''}")
    return Contents(picture, Blocks(xmp=_xmp(data), texts=texts, manifest=manifest, lost=lost))


def _taken_apart(data: bytes) -> tuple[bytes, list[bytes]]:
    """The file without its extensions but the one that belongs to the first picture, and the comments."""
    flags = data[_FLAGS_AT]
    start = at = _HEADER_BYTES + (6 << (flags & _PALETTE_SIZE) if flags & _HAS_PALETTE else 0)
    control, comments, steps = b"", list[bytes](), iter(range(_MOST_SUB_BLOCKS))
    for _ in steps:
        kind = data[at : at + 1]
        if kind in (b",", b";", b""):
            return data[:start] + control + data[at:], comments
        if kind != b"!":  # no block begins so; decoders go on to the next byte
            at += 1
            continue
        label, (content, end) = data[at + 1 : at + 2], _sub_blocks(data, at + 2, steps)
        if label == _CONTROL:
            control = data[at:end]
        elif label == _COMMENT and content:
            comments.append(content)
        at = end
    raise UnsupportedFormat("The GIF has more blocks before its picture than any program writes. Save it again.")


def _sub_blocks(data: bytes, at: int, steps: Iterator[int]) -> tuple[bytes, int]:
    """What a chain of sub-blocks holds, and where it ends: with the file where it is cut, or with the last step."""
    content = bytearray()
    for _ in steps:
        size = data[at] if at < len(data) else 0
        at += 1
        if not size:
            break
        content += data[at : at + size]
        at += size
    return bytes(content), at


def _xmp(data: bytes) -> bytes | None:
    """The first packet. Sought twice and no more: where a regular expression tries each of many beginnings that have no
    end, 100 kB take minutes, in which no other thread of the worker runs."""
    start = data.find(_XMP) + len(_XMP)
    end = data.find(_XMP_END, start, start + xmp.MAX_BYTES + len(_XMP_END))
    return data[start:end] if start >= len(_XMP) and end > start else None


def _manifest(data: bytes) -> tuple[bool, bytes | None]:
    """Whether there is one, and C2PA's manifest store; None where it is too large to be kept, or of more sub-blocks
    than any program writes."""
    start = data.find(_MANIFEST)
    if start < 0:
        return False, None
    steps = iter(range(_MOST_SUB_BLOCKS))
    store, _ = _sub_blocks(data, start + len(_MANIFEST), steps)
    kept = next(steps, None) is not None and len(store) <= MOST_STORE_BYTES
    return True, store if kept else None
