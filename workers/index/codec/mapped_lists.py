"""The inverted lists of a mapped index, read as arrays: FAISS has a call for each entry, and a query finds forty."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Positions
from workers.index.codec.family import Family

__all__ = ["MappedLists"]

_BYTES: Final = 8  # of a position


class MappedLists:
    """Sizes, and positions of entries, by cell. Thread-safe; takes 16 bytes a cell, once it is read.

    Args:
        index: an index with cells whose lists never change.
    """

    def __init__(self, index: Any) -> None:
        self._index = index  # which keeps its lists
        self.lists = Family(index).inner.invlists

    def warm(self) -> None:
        """Read what is kept, so that the first query does not wait for it."""
        _ = self._memory

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many entries each list has."""
        return np.fromiter(map(self.lists.list_size, range(self.lists.nlist)), np.int64, self.lists.nlist)

    def at(self, cells: Positions, places: Positions) -> Positions:
        """The positions (M,) of the entries at some places (M,) of the lists of some cells (M,)."""
        starts, memory = self._memory
        each_byte = (starts[cells] + _BYTES * places)[:, None] + np.arange(_BYTES)
        return memory[each_byte].view("<i8")[:, 0]  # type: ignore[no-any-return]

    @cached_property
    def _memory(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Where each list's positions begin in a part of this process' memory, and that part: from the first to the end
        of the last one, whatever lies between."""
        filled = np.flatnonzero(self.sizes)
        starts = np.zeros(len(self.sizes), np.int64)
        if not len(filled):
            return starts, np.empty(0, np.uint8)
        addresses = np.fromiter((int(self.lists.get_ids(cell)) for cell in filled.tolist()), np.int64, len(filled))
        first, end = int(addresses.min()), int((addresses + _BYTES * self.sizes[filled]).max())
        starts[filled] = addresses - first
        return starts, np.frombuffer(memoryview((ctypes.c_uint8 * (end - first)).from_address(first)), np.uint8)
