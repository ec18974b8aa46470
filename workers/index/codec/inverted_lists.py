"""Files of inverted lists, written list by list: what a merge takes of memory does not grow with what is merged.

Layout, which is FAISS' own: ``ilar`` | number of lists | bytes of a code | ``full`` and the size of each list, or
``sprs`` and the number and size of each that is not empty | of each such list, its codes and then its positions. Before
the sizes comes how many numbers they are. Numbers are uint64, little endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Codes, Positions
from workers.index.codec.kept import Kept
from workers.index.codec.mapped_lists import AT_ONCE, MappedLists, neighbours

__all__ = ["LISTS", "numbers_of", "write_header", "write_lists"]

# How a file of inverted lists begins; one of a whole index, as earlier versions wrote, begins with its class.
LISTS: Final = b"ilar"
_BUFFER: Final = 1 << 20


class _Source(Protocol):
    """Entries, cell by cell."""

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many there are in each cell."""

    def read(self, cells: range) -> tuple[Codes, Positions]:
        """Those in neighbouring cells, one cell's behind another's: codes without the cell's number, and positions (M,)
        int64 in the file."""


def write_lists(
    codec: Codec, parts: Sequence[tuple[Any, Kept]], codes: Codes, path: Path, at_once: int = AT_ONCE
) -> None:
    """Write the entries of some mapped indexes with cells that are kept, and then codes (N, code_size) at the next
    positions.

    Beside the codes, this takes 16 bytes for each of those, and `at_once` entries or the longest list.

    Args:
        at_once: about how many entries are read before they are written.
    """
    first = sum(len(kept) for _, kept in parts)
    sources: list[_Source] = [*(_Mapped(index, kept, at_once) for index, kept in parts)]
    sources.append(_Added(codec, codes, first))
    sizes = np.array([source.sizes for source in sources])
    with path.open("wb", buffering=_BUFFER) as file:
        write_header(file, sizes.sum(axis=0), codec.code_size - codec.cell_size)
        for cells in neighbours(sizes.sum(axis=0), at_once):
            some = sizes[:, cells.start : cells.stop]
            listed, positions = _merged([source.read(cells) for source in sources], some)
            for start, end in pairwise([0, *some.sum(axis=0).cumsum().tolist()]):
                file.write(listed[start:end].data)
                file.write(positions[start:end].data)


def _merged(read: Sequence[tuple[Codes, Positions]], sizes: npt.NDArray[np.int64]) -> tuple[Codes, Positions]:
    """What was read of several sources, by cell and within a cell by source.

    Args:
        sizes: (S, C), how many entries each source has in each cell.
    """
    codes, positions = map(np.concatenate, zip(*read, strict=True))
    cells = np.concatenate([np.arange(sizes.shape[1]).repeat(of_it) for of_it in sizes])
    order = cells.argsort(kind="stable")
    return codes[order], positions[order].astype("<i8", copy=False)


def write_header(file: BinaryIO, sizes: npt.NDArray[np.int64], code_size: int) -> None:
    """Write what comes before the lists, of the sizes (C,) of all of them."""
    filled = np.flatnonzero(sizes)
    full = len(filled) > len(sizes) // 2
    numbers = sizes if full else np.column_stack([filled, sizes[filled]]).ravel()
    file.write(LISTS + numbers_of(len(sizes), code_size))
    file.write((b"full" if full else b"sprs") + numbers_of(len(numbers)) + numbers.astype("<u8").tobytes())


def numbers_of(*numbers: int) -> bytes:
    """Numbers as the header has them."""
    return np.array(numbers, dtype="<u8").tobytes()


class _Mapped:
    """Those of a mapped index that are kept."""

    def __init__(self, index: Any, kept: Kept, at_once: int) -> None:
        self._lists, self._kept, self._at_once = MappedLists(index), kept, at_once

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        sizes = self._lists.sizes
        return sizes if self._kept.all else np.concatenate(list(map(self._left, neighbours(sizes, self._at_once))))

    def _left(self, cells: range) -> npt.NDArray[np.int64]:
        """How many are kept in each of some cells."""
        kept = self._kept.mask[self._lists.positions(cells)]
        bounds = np.concatenate([[0], self._lists.sizes[cells.start : cells.stop].cumsum()])
        counts: npt.NDArray[np.int64] = np.diff(np.concatenate([[0], kept.cumsum()])[bounds])
        return counts

    def read(self, cells: range) -> tuple[Codes, Positions]:
        codes, positions = self._lists.read(cells)
        if not self._kept.all:
            chosen = self._kept.mask[positions]
            codes, positions = codes[chosen], positions[chosen]
        return codes, self._kept.moved(positions)


class _Added:
    """Codes that are in no index yet, in order of their cells."""

    def __init__(self, codec: Codec, codes: Codes, first: int) -> None:
        self._codes, self._cell_size, self._first = codes, codec.cell_size, first
        cells = codec.cells_of(codes)
        if len(cells) and int(cells.max()) >= codec.cells:
            raise ValueError(f"A code names the cell {int(cells.max())}; there are {codec.cells}.")
        self._order = np.argsort(cells, kind="stable")
        self.sizes = np.bincount(cells, minlength=codec.cells)
        self._bounds = np.concatenate([[0], self.sizes.cumsum()])

    def read(self, cells: range) -> tuple[Codes, Positions]:
        chosen = self._order[self._bounds[cells.start] : self._bounds[cells.stop]]
        return self._codes[chosen, self._cell_size :], chosen + self._first
