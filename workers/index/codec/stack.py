"""Several mapped indexes of one codec, searched as if their entries were in one.

Each inverted list is the indexes' own lists, one behind the other: a query computes its distance tables once, not once
for each index, and finds what plain FAISS finds in one index of the same codes in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Features, Positions, Probe, search, search_cells
from workers.index.codec.family import Family

__all__ = ["Found", "Stack", "columns", "merged"]

# FAISS names an entry of a list by the list's number, in the upper half, and the place in it.
_PLACE_BITS: Final = 32

# Of M entries, nearest first: the number of the index, the position there, and the distance.
Found = tuple[npt.NDArray[np.int64], Positions, Features]


class Stack:
    """Searches indexes of one codec together. Thread-safe; they stay open as long as it does."""

    def __init__(self, codec: Codec, indexes: Sequence[Any]) -> None:
        self._indexes = list(indexes)
        self._lists = [Family(index).inner.invlists for index in indexes] if codec.has_cells else []
        self._starts: dict[int, npt.NDArray[np.int64]] = {}
        self.index: Any = None  # of all entries; None where there is no cell, or no index, to search together
        if self._lists:
            self._stacked = _behind_each_other(self._lists)
            self.index = codec.shells.over(self._stacked)

    def search(self, probe: Probe, k: int) -> Found:
        """The `k` nearest entries; of equal distances, those of earlier indexes and positions first."""
        if self.index is None:
            return merged([self._each(probe, k)], k)
        if len(self._indexes) == 1:
            pairs = search(self.index, probe, k)
            return columns([(0, position, distance) for position, distance in pairs])
        distances, labels = search_cells(self.index, probe, k, pairs=True)
        found = labels[0] >= 0
        return merged([self._resolved(labels[0][found], distances[0][found])], k)

    def _each(self, probe: Probe, k: int) -> Found:
        found = [(n, p, d) for n, index in enumerate(self._indexes) for p, d in search(index, probe, k)]
        return columns(found)

    def _resolved(self, labels: Positions, distances: Features) -> Found:
        """Numbers of indexes and positions in them, of entries named by their cell and their place in its lists."""
        cells, places = labels >> _PLACE_BITS, labels & ((1 << _PLACE_BITS) - 1)
        numbers, positions = np.empty_like(labels), np.empty_like(labels)
        for i, (cell, place) in enumerate(zip(cells.tolist(), places.tolist(), strict=True)):
            starts = self._starts_in(cell)
            number = int(starts.searchsorted(place, "right")) - 1
            numbers[i] = number
            positions[i] = self._lists[number].get_single_id(cell, place - int(starts[number]))
        return numbers, positions, distances

    def _starts_in(self, cell: int) -> npt.NDArray[np.int64]:
        """Where each index' entries begin in a cell's list (one number for each index); computed once, then kept."""
        starts = self._starts.get(cell)
        if starts is None:
            sizes = [lists.list_size(cell) for lists in self._lists]
            starts = self._starts[cell] = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        return starts


def _behind_each_other(lists: Sequence[Any]) -> Any:
    if len(lists) == 1:
        return lists[0]
    pointers = faiss.InvertedListsPtrVector()
    for part in lists:
        pointers.push_back(part)
    return faiss.HStackInvertedLists(pointers.size(), pointers.data())


def columns(found: Sequence[tuple[int, int, float]]) -> Found:
    """Entries as arrays."""
    numbers, positions, distances = zip(*found, strict=True) if found else ((), (), ())
    return np.array(numbers, np.int64), np.array(positions, np.int64), np.array(distances, np.float32)


def merged(parts: Sequence[Found], k: int) -> Found:
    """The `k` nearest of the entries in all parts; of equal distances, those of earlier indexes and positions first."""
    numbers, positions, distances = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((positions, numbers, distances))[:k]
    return numbers[order], positions[order], distances[order]
