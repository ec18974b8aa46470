"""The inverted lists of mapped indexes, read as arrays: FAISS has a call for each entry, and a query finds forty."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codes, Positions
from workers.index.codec.family import Family

__all__ = ["ListsBehindEachOther", "MappedLists", "memory_of"]

_BYTES: Final = 8  # of a position
_EACH_BYTE: Final = np.arange(_BYTES)


class MappedLists:
    """One index' lists: where they are, how long, and what is in them. Thread-safe; takes 40 bytes a cell, once it is
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
        codes, positions = [self._file[:0]], [self._file[:0]]
        for size, capacity, start in self._table[cells.start : cells.stop].tolist():
            middle = start + self.code_size * capacity
            codes.append(self._file[start : start + self.code_size * size])
            positions.append(self._file[middle : middle + _BYTES * size])
        return np.concatenate(codes).reshape(-1, self.code_size), np.concatenate(positions).view("<i8")

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
