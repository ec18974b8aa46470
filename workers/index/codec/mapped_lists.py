"""The inverted lists of mapped indexes, read as arrays: FAISS has a call for each entry, and a query finds forty."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codes, Positions, flat_codes
from workers.index.codec.family import Family

__all__ = [
    "AT_ONCE",
    "ListsBehindEachOther",
    "MappedLists",
    "code_at",
    "codes_at",
    "codes_of",
    "memory_of",
    "neighbours",
]

# Entries. List by list, Python's lock is let go of thousands of times, each time too briefly for another thread to get
# it before the last list is read: of 4,096 lists, after 50 ms.
AT_ONCE: Final = 1 << 16
_BYTES: Final = 8  # of a position
_EACH_BYTE: Final = np.arange(_BYTES)


class MappedLists:
    """One index' lists: where they are, how long, and what is in them. Thread-safe; takes 48 bytes a cell, once it is
    read.

    FAISS tells it in a call for each list, which lets go of Python's lock for a moment too short for another thread to
    get it: in a loop over 4,096 lists no one else does. So the table of lists is read where FAISS has it.

    Args:
        index: an index with cells that was mapped (:func:`workers.index.codec.mapped.map_index`).
    """

    def __init__(self, index: Any) -> None:
        self._index = index  # which keeps its lists
        inner = Family(index).inner
        self.lists, self.code_size = inner.invlists, int(inner.code_size)  # without the cell's number

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many entries each list has."""
        return np.array(self._table[:, 0])

    @cached_property
    def addresses(self) -> npt.NDArray[np.int64]:
        """Where in this process' memory the positions of each list's entries begin; 0 for a list without any."""
        return np.where(self.sizes > 0, self.codes + self.code_size * self._table[:, 1], 0)

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """Where in this process' memory the codes of each list's entries begin."""
        addresses: npt.NDArray[np.int64] = int(self._mapped.ptr) + self._table[:, 2]
        return addresses

    def read(self, cells: range) -> tuple[Codes, Positions]:
        """The entries of neighbouring lists, one list's behind another's: codes (M, code_size) without the cell's
        number, and positions (M,)."""
        codes = [self._file[:0]]
        for size, _, start in self._table[cells.start : cells.stop].tolist():
            codes.append(self._file[start : start + self.code_size * size])
        return np.concatenate(codes).reshape(-1, self.code_size), self.positions(cells)

    def positions(self, cells: range) -> Positions:
        """Their positions only."""
        positions = [self._file[:0]]
        for size, capacity, start in self._table[cells.start : cells.stop].tolist():
            first = start + self.code_size * capacity
            positions.append(self._file[first : first + _BYTES * size])
        return np.concatenate(positions).view("<i8")

    def numbers(self, cells: range) -> Positions:
        """The cell of each of them, (M,)."""
        return np.arange(cells.start, cells.stop).repeat(self.sizes[cells.start : cells.stop])

    @property
    def _mapped(self) -> Any:
        return faiss.downcast_InvertedLists(self.lists)

    @cached_property
    def _table(self) -> npt.NDArray[np.int64]:
        """Of each list, the number of its entries, the number that there is room for, and where it begins in the file:
        first its codes, then its positions (FAISS' ``OnDiskOneList``)."""
        lists = self._mapped.lists
        table = (ctypes.c_int64 * (3 * lists.size())).from_address(int(lists.data().this))
        return np.array(table).reshape(-1, 3)

    @cached_property
    def _file(self) -> npt.NDArray[np.uint8]:
        """All of the mapped file."""
        mapped = self._mapped
        return np.frombuffer((ctypes.c_uint8 * mapped.totsize).from_address(int(mapped.ptr)), np.uint8)


def neighbours(sizes: npt.NDArray[np.int64], at_once: int = AT_ONCE) -> Iterator[range]:
    """All cells, as ranges of about so many entries, by the sizes (C,) of their lists."""
    edges = sizes.cumsum().searchsorted(np.arange(at_once, sizes.sum(), at_once))
    return (range(start, end) for start, end in pairwise(np.unique([0, *edges, len(sizes)]).tolist()))


def codes_of(index: Any) -> Codes:
    """The codes (N, code_size) uint8 of a mapped index's entries, by position."""
    family = Family(index)
    if not family.has_cells:
        return np.array(flat_codes(index))
    lists, codes = MappedLists(index), _empty(family, index.ntotal)
    for cells in neighbours(lists.sizes):
        listed, positions = lists.read(cells)
        _put(codes, positions, family, lists.numbers(cells), listed)
    return codes


def code_at(index: Any, position: int) -> Codes:
    """The code (code_size,) uint8 of one entry; IndexError when there is none at that position."""
    (code,) = codes_at(index, np.array([position]))
    return code  # type: ignore[no-any-return]


def codes_at(index: Any, positions: Positions) -> Codes:
    """The codes (M, code_size) uint8 of some entries of a mapped index, at positions (M,) int64, ascending; few others
    are read. IndexError when there is none at a position."""
    family, left = Family(index), len(positions)
    if not family.has_cells:
        return np.array(flat_codes(index)[positions])
    lists, codes = MappedLists(index), _empty(family, left)
    for cells in neighbours(lists.sizes) if left else ():
        listed_at = lists.positions(cells)
        places = positions.searchsorted(listed_at)
        found = np.flatnonzero(positions[np.minimum(places, len(positions) - 1)] == listed_at)
        if not len(found):
            continue
        _put(codes, places[found], family, lists.numbers(cells)[found], lists.read(cells)[0][found])
        left -= len(found)
        if not left:
            break
    if left:
        raise IndexError(f"{left} of {len(positions)} positions")
    return codes


def _empty(family: Family, count: int) -> Codes:
    return np.empty((count, family.cell_size + family.inner.code_size), dtype=np.uint8)


def _put(codes: Codes, places: Positions, family: Family, cells: Positions, listed: Codes) -> None:
    """Write codes (M, code_size) of entries with these cells (M,) at some places (M,)."""
    codes[places, : family.cell_size] = cells.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : family.cell_size]
    codes[places, family.cell_size :] = listed


class ListsBehindEachOther:
    """The lists of several indexes, each behind that of the index before, as FAISS searches them. Thread-safe."""

    def __init__(self, lists: Sequence[MappedLists]) -> None:
        self._lists = list(lists)
        self._memory, self._first = memory_of([(one.addresses, _BYTES * one.sizes) for one in lists])

    def at(self, cells: Positions, places: Positions) -> tuple[npt.NDArray[np.int64], Positions]:
        """Of the entries at some places (M,) of the lists of some cells (M,): the numbers of their indexes (M,), and
        their positions (M,) there."""
        if len(self._lists) == 1:
            return np.zeros_like(places), self._positions(self._lists[0].addresses[cells], places)
        sizes = np.array([one.sizes[cells] for one in self._lists])
        ends = sizes.cumsum(axis=0)
        numbers = (ends <= places).sum(axis=0)
        chosen = numbers, np.arange(len(numbers))
        starts = np.array([one.addresses[cells] for one in self._lists])[chosen]
        return numbers, self._positions(starts, places - ends[chosen] + sizes[chosen])

    def _positions(self, addresses: npt.NDArray[np.int64], places: Positions) -> Positions:
        """What is at some places (M,) of lists that begin at some addresses (M,)."""
        each_byte = (addresses - self._first + _BYTES * places)[:, None] + _EACH_BYTE
        positions: Positions = self._memory[each_byte].view("<i8")[:, 0]
        return positions


def memory_of(
    parts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> tuple[npt.NDArray[np.uint8], int]:
    """This process' memory from the first to the last of some parts, whatever lies between, and where it begins. Only
    the parts may be read.

    Args:
        parts: where some of them begin, and their bytes; those without any are left out.
    """
    begun = np.concatenate([np.empty(0, np.int64), *(starts[sizes > 0] for starts, sizes in parts)])
    ended = np.concatenate([np.empty(0, np.int64), *((starts + sizes)[sizes > 0] for starts, sizes in parts)])
    if not len(begun):
        return np.empty(0, np.uint8), 0
    first, end = int(begun.min()), int(ended.max())
    return np.frombuffer(memoryview((ctypes.c_uint8 * (end - first)).from_address(first)), np.uint8), first
