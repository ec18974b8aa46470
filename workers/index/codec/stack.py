"""Several mapped indexes of one codec, searched as if their entries were in one.

Each inverted list is the indexes' own lists, one behind the other: a query computes its distance tables once, not once
for each index, and finds what plain FAISS finds in one index of the same codes in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Features, Positions, search
from workers.index.codec.mapped_lists import ListsBehindEachOther, MappedLists
from workers.index.codec.probes import Probe, batched, search_cells

__all__ = ["Found", "Stack", "columns", "merged"]

# FAISS names an entry of a list by the list's number, in the upper half, and the place in it.
_PLACE_BITS: Final = 32

# Of M entries, nearest first: the number of the index, the position there, and the distance.
Found = tuple[npt.NDArray[np.int64], Positions, Features]


class Stack:
    """Searches indexes of one codec together. Thread-safe; they stay open as long as it does.

    Args:
        lists: their inverted lists, for a codec with cells.
    """

    def __init__(self, codec: Codec, indexes: Sequence[Any], lists: Sequence[MappedLists]) -> None:
        self._indexes = list(indexes)
        self.index: Any = None  # of all entries; None where there is no cell, or no index, to search together
        if lists:
            self._stacked = _behind_each_other([one.lists for one in lists])
            self.index = codec.shells.over(self._stacked)
        self._behind = ListsBehindEachOther(lists) if len(lists) > 1 else None

    def parts(self) -> list[object]:
        """What takes long to free; see :meth:`workers.index.collection.generation.Generation.parts`."""
        return [*self._indexes, self.index]

    def search(self, probes: Sequence[Probe], k: int) -> list[Found]:
        """For each probe, the `k` nearest entries; of equal distances, those of earlier indexes and positions first.
        Where there are cells, all probes are searched for by one call of FAISS."""
        if self.index is None:
            return [merged([self._each(probe, k)], k) for probe in probes]
        distances, labels = search_cells(self.index, batched(probes), k, pairs=self._behind is not None)
        if len(probes) == 1:
            found = labels[0] >= 0
            return [merged([self._resolved(labels[0][found], distances[0][found])], k)]
        return self._of_each(distances, labels)

    def _of_each(self, distances: Features, labels: Positions) -> list[Found]:
        """The same of what FAISS found for Q queries, (Q, k) each: ordered at once."""
        rows, places = np.nonzero(labels >= 0)
        numbers, positions, found = self._resolved(labels[rows, places], distances[rows, places])
        order = np.lexsort((positions, numbers, found, rows))
        ends = np.cumsum(np.bincount(rows, minlength=len(labels))).tolist()
        of_each = [order[start:end] for start, end in pairwise([0, *ends])]
        return [(numbers[one], positions[one], found[one]) for one in of_each]

    def _each(self, probe: Probe, k: int) -> Found:
        found = [(n, p, d) for n, index in enumerate(self._indexes) for p, d in search(index, probe, k)]
        return columns(found)

    def _resolved(self, labels: Positions, distances: Features) -> Found:
        """Numbers of indexes and positions in them, of entries that FAISS named: by their positions, where there is one
        index, else by their cell and their place in its lists."""
        if self._behind is None:
            return np.zeros_like(labels), labels, distances
        return *self._behind.at(labels >> _PLACE_BITS, labels & ((1 << _PLACE_BITS) - 1)), distances


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
