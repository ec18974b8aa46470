"""Blocks of neighbouring cells in a file of inverted lists, and files that hold some of them only.

The digest of a whole file says nothing of a part of it, so each block has its own: of how many lists the file has, of
the bytes of a code, of the block's first cell and the sizes of its lists (uint64, little endian), and of the lists. A
part is a file of the same form in which the lists of all other cells are empty. Digests of blocks are the same in both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from tasks.names import sha256_hex
from tasks.shards import Shard
from workers.index.codec.inverted_lists import LISTS, numbers_of, write_header

__all__ = ["Layout", "Part", "block_digests", "header_bytes", "largest_part", "part_of"]

# Shards of any number are nearly unions of them: a third of 64 blocks is 22 or 23.
_BLOCKS: Final = 64
_FIXED: Final = 32  # bytes of a header before its sizes
_POSITION_BYTES: Final = 8
_MOST_CODE_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 20


def header_bytes(cells: int) -> int:
    """How many bytes the header of a file of so many lists has at most."""
    return _FIXED + 8 * cells


@dataclass(frozen=True)
class Layout:
    """Where the lists of a file are.

    Attributes:
        sizes: how many entries each list has, (C,) int64.
        code_size: bytes of a code, without its cell's number.
        start: where the first list begins.
    """

    sizes: npt.NDArray[np.int64]
    code_size: int
    start: int

    @classmethod
    def read(cls, head: bytes, cells: int, size: int) -> Layout:
        """Of a file of so many lists and `size` bytes, of which the first are given: :func:`header_bytes`, or all.

        Raises:
            ValueError: no file of so many lists and bytes begins like that.
        """
        if len(head) < _FIXED or not head.startswith(LISTS):
            raise ValueError("These are no inverted lists.")
        known, code_size, count = (int.from_bytes(head[at : at + 8], "little") for at in (4, 12, 24))
        start = _FIXED + 8 * count
        if known != cells or not 0 < code_size <= _MOST_CODE_BYTES or start > len(head):
            raise ValueError(f"The header of {known} lists does not fit {cells} cells.")
        sizes = _sizes(head[20:24], np.frombuffer(head[:start], dtype="<i8", offset=_FIXED), cells)
        entry = code_size + _POSITION_BYTES
        if ((sizes < 0) | (sizes > size // entry)).any() or start + entry * int(sizes.sum()) != size:
            raise ValueError("The lists are not as long as their header says.")
        return cls(sizes, code_size, start)

    @classmethod
    def of(cls, file: BinaryIO, cells: int) -> Layout:
        """Of an open file; raises ValueError."""
        file.seek(0)
        return cls.read(file.read(header_bytes(cells)), cells, os.fstat(file.fileno()).st_size)

    def span(self, cells: range) -> tuple[int, int]:
        """Where the lists of neighbouring cells begin and end."""
        return int(self._bounds[cells.start]), int(self._bounds[cells.stop])

    def within(self, cells: range) -> npt.NDArray[np.int64]:
        """The sizes (C,) of the lists of some neighbouring cells; 0 for the others."""
        sizes = np.zeros_like(self.sizes)
        sizes[cells.start : cells.stop] = self.sizes[cells.start : cells.stop]
        return sizes

    @cached_property
    def _bounds(self) -> npt.NDArray[np.int64]:
        ends = np.cumsum((self.code_size + _POSITION_BYTES) * self.sizes)
        return self.start + np.concatenate([np.zeros(1, np.int64), ends])


def _sizes(kind: bytes, numbers: npt.NDArray[np.int64], cells: int) -> npt.NDArray[np.int64]:
    if kind == b"full" and len(numbers) == cells:
        return numbers
    filled, sizes = numbers[::2], np.zeros(cells, np.int64)
    if kind != b"sprs" or len(numbers) % 2 or ((filled < 0) | (filled >= cells)).any():
        raise ValueError(f"The header's sizes of {cells} lists cannot be read.")
    sizes[filled] = numbers[1::2]
    return sizes


@dataclass(frozen=True)
class Part:
    """Some neighbouring blocks of a file, at least one.

    Attributes:
        of: how many lists the file has.
        blocks: the cells of each block, and its digest.
    """

    of: int
    blocks: tuple[tuple[range, str], ...]

    @property
    def name(self) -> str:
        """Names what is in it: the sha256 of the blocks' digests."""
        return sha256_hex(" ".join(digest for _, digest in self.blocks).encode())

    @property
    def cells(self) -> range:
        return range(self.blocks[0][0].start, self.blocks[-1][0].stop)

    def write(self, path: Path, layout: Layout, lists: Iterable[bytes]) -> None:
        """Write it.

        Args:
            layout: of the whole file.
            lists: what lies in that between :meth:`Layout.span`.
        """
        with path.open("wb") as file:
            write_header(file, layout.within(self.cells), layout.code_size)
            file.writelines(lists)

    def is_in(self, file: BinaryIO) -> bool:
        """Whether an open file is this part, to the last byte that FAISS reads."""
        try:
            layout = Layout.of(file, self.of)
        except ValueError:
            return False
        alone = (layout.sizes == layout.within(self.cells)).all()
        return bool(alone) and all(_digest(file, layout, cells) == digest for cells, digest in self.blocks)


def part_of(cells: range, digests: Sequence[str], of: int) -> Part:
    """The blocks that hold some neighbouring cells of a file of `of` lists; of no cells, the first block."""
    count = len(digests)
    first, last = (((cell + 1) * count - 1) // of for cell in (cells.start, cells.stop - 1))
    numbers = range(first, last + 1) if cells else range(1)
    return Part(of, tuple((_cells(number, count, of), digests[number]) for number in numbers))


def largest_part(shards: int, of: int) -> float:
    """The share of lists of one size, `of` in number, that the shard fetches which fetches most."""
    digests = [""] * min(_BLOCKS, of)
    numbers = range(1, min(shards, of) + 1)  # of more shards than cells, each has one cell at most, or none
    return max(len(part_of(Shard(number, len(numbers)).cells(of), digests, of).cells) for number in numbers) / of


def block_digests(path: Path) -> tuple[int, list[str]] | None:
    """How many lists a file has, and the digests of its blocks; None for an index of another form."""
    with path.open("rb") as file:
        head = file.read(_FIXED)
        if not head.startswith(LISTS):
            return None
        cells = int.from_bytes(head[4:12], "little")
        layout, count = Layout.of(file, cells), min(_BLOCKS, cells)
        return cells, [_digest(file, layout, _cells(number, count, cells)) for number in range(count)]


def _cells(number: int, count: int, of: int) -> range:
    """The cells of a block: those that one of so many shards has."""
    return Shard(number + 1, count).cells(of)


def _digest(file: BinaryIO, layout: Layout, cells: range) -> str:
    start, end = layout.span(cells)
    sizes = layout.sizes[cells.start : cells.stop].tolist()
    digest = hashlib.sha256(numbers_of(len(layout.sizes), layout.code_size, cells.start, *sizes))
    file.seek(start)
    while chunk := file.read(min(_CHUNK, end - start)):
        digest.update(chunk)
        start += len(chunk)
    return digest.hexdigest()
