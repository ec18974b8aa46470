"""The inverted lists of mapped indexes, read as arrays: FAISS has a call for each entry, and a query finds forty."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Positions
from workers.index.codec.family import Family

__all__ = ["ListsBehindEachOther", "MappedLists"]

_BYTES: Final = 8  # of a position


class MappedLists:
    """Where one index' lists are, and how long. Thread-safe; takes 16 bytes a cell, once it is read.

    Args:
        index: an index with cells whose lists never change.
    """

    def __init__(self, index: Any) -> None:
        self._index = index  # which keeps its lists
        self.lists = Family(index).inner.invlists

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many entries each list has."""
        return np.fromiter(map(self.lists.list_size, range(self.lists.nlist)), np.int64, self.lists.nlist)

    @cached_property
    def addresses(self) -> npt.NDArray[np.int64]:
        """Where in this process' memory the positions of each list's entries begin; 0 for a list without any."""
        filled, addresses = np.flatnonzero(self.sizes), np.zeros(len(self.sizes), np.int64)
        for cell in filled.tolist():
            addresses[cell] = int(self.lists.get_ids(cell))
        return addresses


class ListsBehindEachOther:
    """The lists of several indexes, each behind that of the index before, as FAISS searches them. Thread-safe."""

    def __init__(self, lists: Sequence[MappedLists]) -> None:
        self._lists = list(lists)
        filled = [one for one in lists if one.addresses.any()]
        self._first = min((int(one.addresses[one.addresses > 0].min()) for one in filled), default=0)
        end = max((int((one.addresses + _BYTES * one.sizes).max()) for one in filled), default=0)
        # From the first to the end of the last one, whatever lies between: only positions are read.
        part = (ctypes.c_uint8 * (end - self._first)).from_address(self._first) if filled else b""
        self._memory = np.frombuffer(memoryview(part), np.uint8)

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
        each_byte = (addresses - self._first + _BYTES * places)[:, None] + np.arange(_BYTES)
        positions: Positions = self._memory[each_byte].view("<i8")[:, 0]
        return positions
