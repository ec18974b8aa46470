"""Several mapped indexes of one codec, searched as if their entries were in one.

Each inverted list is the indexes' own lists, one behind the other: a query computes its distance tables once, not once
for each index, and finds what plain FAISS finds in one index of the same codes in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Features, Positions, search
from workers.index.codec.mapped_lists import ListsBehindEachOther, MappedLists
from workers.index.codec.probes import Probe, ProbeBatch, batched, search_cells
from workers.index.codec.scan import PLACE_BITS, Scan

__all__ = ["Found", "Stack", "columns", "merged"]

# Of M entries, nearest first: the number of the index, the position there, and the distance.
Found = tuple[npt.NDArray[np.int64], Positions, Features]


class Stack:
    """Searches indexes of one codec together. Thread-safe; they stay open as long as it does.

    Args:
        lists: their inverted lists, for a codec with cells.
    """

    def __init__(self, codec: Codec, indexes: Sequence[Any], lists: Sequence[MappedLists]) -> None:
        self._indexes = list(indexes)
        # None where there is no cell, or no index, to search together.
        self._together = _searched_together(codec, lists) if lists else None
        self._lists = ListsBehindEachOther(lists)

    def parts(self) -> list[object]:
        """What takes long to free; see :meth:`workers.index.collection.generation.Generation.parts`."""
        return [*self._indexes, self._together]

    def search(self, probes: Sequence[Probe], k: int) -> list[Found]:
        """For each probe, the `k` nearest entries; of equal distances, those of earlier indexes and positions first.
        Where there are cells, all probes are searched for by one call."""
        if self._together is None:
            return [merged([self._each(probe, k)], k) for probe in probes]
        return self._entries(self._together, batched(probes), k).of_each(len(probes))

    def search_inside(
        self, probes: Sequence[Probe], k: int, inner: Sequence[Probe], least: int
    ) -> tuple[list[Found], list[Found | None]]:
        """The same, and by the same search for each of these queries the nearest entries in fewer of its cells, `least`
        of them or more; None where that has to be searched for, since they are not among the `k` nearest."""
        if self._together is None:
            return self.search(probes, k), [*self.search(inner, least)]
        batch, fewer = batched(probes), batched(inner)
        entries, count = self._entries(self._together, batch, k), len(probes)
        first = batch.cells[:, : fewer.cells.shape[1]]  # the nearest ones
        alike = ((fewer.cells == first) | (fewer.cells < 0)).all(axis=1)
        among = entries.chosen((fewer.cells[entries.rows] == entries.cells[:, None]).any(axis=1))
        known = alike & ((among.counts(count) >= least) | (entries.counts(count) < k))
        pairs = zip(among.of_each(count), known.tolist(), strict=True)
        return entries.of_each(count), [found if is_known else None for found, is_known in pairs]

    def _entries(self, together: _Together, probes: ProbeBatch, k: int) -> _Entries:
        """What is found for many queries: by cell and place in the lists of all indexes."""
        distances, labels = together.search(probes, k)
        found = labels >= 0
        rows, labels, distances = found.nonzero()[0], labels[found], distances[found]
        cells = labels >> PLACE_BITS
        numbers, positions = self._lists.at(cells, labels & ((1 << PLACE_BITS) - 1))
        return _Entries(rows, cells, numbers, positions, distances).in_order()

    def _each(self, probe: Probe, k: int) -> Found:
        found = [(n, p, d) for n, index in enumerate(self._indexes) for p, d in search(index, probe, k)]
        return columns(found)


class _Entries(NamedTuple):
    """Entries that were found for several queries: the number of the query (M,), ascending, the cell (M,), and the
    columns of :data:`Found`, nearest first for each query."""

    rows: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    positions: Positions
    distances: Features

    def in_order(self) -> _Entries:
        """Of equal distances, those of earlier indexes and positions first: FAISS leaves their order open."""
        tied = (self.distances[1:] == self.distances[:-1]) & (self.rows[1:] == self.rows[:-1])
        if not tied.any():
            return self
        return self.chosen(np.lexsort((self.positions, self.numbers, self.distances, self.rows)))

    def chosen(self, which: Any) -> _Entries:
        return _Entries(*(column[which] for column in self))

    def counts(self, queries: int) -> npt.NDArray[np.int64]:
        """How many entries there are for each query."""
        if queries == 1:  # to count, NumPy lets go of Python's lock: half a millisecond beside a busy thread
            return np.array([len(self.rows)])
        return np.bincount(self.rows, minlength=queries)

    def of_each(self, queries: int) -> list[Found]:
        ends = self.counts(queries).cumsum().tolist()
        return [
            (self.numbers[start:end], self.positions[start:end], self.distances[start:end])
            for start, end in pairwise([0, *ends])
        ]


class _Together(Protocol):
    """The lists of several indexes, each behind that of the index before, as they are searched."""

    def search(self, probes: ProbeBatch, k: int) -> tuple[Features, npt.NDArray[np.int64]]:
        """Distances (Q, k) of the nearest entries, nearest first, and their cells, in the upper 32 bits, with their
        places in the list; −1 where there are fewer."""


def _searched_together(codec: Codec, lists: Sequence[MappedLists]) -> _Together:
    return _ByFaiss(codec, lists) if codec.shells.terms is None else Scan(codec.shells, lists)


class _ByFaiss:
    """Codes of other lengths, and of so many cells that no table of distances is made for them."""

    def __init__(self, codec: Codec, lists: Sequence[MappedLists]) -> None:
        self._lists = _behind_each_other([one.lists for one in lists])
        self._index = codec.shells.over(self._lists)

    def search(self, probes: ProbeBatch, k: int) -> tuple[Features, npt.NDArray[np.int64]]:
        return search_cells(self._index, probes, k, pairs=True)


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
