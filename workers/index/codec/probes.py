"""Queries as an index is asked for them: prepared once, searched for one at a time or many by one call of FAISS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss
import numpy as np

__all__ = ["Probe", "ProbeBatch", "batched", "one_thread", "search_cells"]


@dataclass(frozen=True)
class Probe:
    """A query, prepared for comparison with codes.

    Attributes:
        query: (1, T) float32, the feature in the space of the index.
        cells: (1, nprobe) int64, the cells to search; None for an index without cells.
        distances: (1, nprobe) float32, squared distances of their centroids; None likewise.
    """

    query: Any
    cells: Any | None
    distances: Any | None

    @property
    def nprobe(self) -> int:
        """How many cells are searched; 1 for an index without."""
        return 1 if self.cells is None else int(self.cells.shape[1])

    def of_nearest(self, nprobe: int) -> Probe:
        """The same in the nearest cells only."""
        if self.cells is None or self.distances is None or nprobe >= self.nprobe:
            return self
        return Probe(self.query, self.cells[:, :nprobe], self.distances[:, :nprobe])

    def among(self, cells: range) -> Probe:
        """The same in those of its cells that are among these only; they may be none."""
        if self.cells is None or self.distances is None:
            return self
        chosen = (self.cells[0] >= cells.start) & (self.cells[0] < cells.stop)
        return Probe(self.query, self.cells[:, chosen], self.distances[:, chosen])


@dataclass(frozen=True)
class ProbeBatch:
    """Q queries of an index with cells.

    Attributes:
        queries: (Q, T) float32, the features in the space of the index.
        cells: (Q, nprobe) int64, the cells to search; −1 where there is none, in which FAISS searches nothing.
        distances: (Q, nprobe) float32, squared distances of their centroids.
    """

    queries: Any
    cells: Any
    distances: Any


def batched(probes: Sequence[Probe]) -> ProbeBatch:
    """Queries of an index with cells, at least one, to be searched for by one call."""
    if len(probes) == 1:
        return ProbeBatch(probes[0].query, probes[0].cells, probes[0].distances)
    queries, numbers = np.concatenate([probe.query for probe in probes]), {probe.nprobe for probe in probes}
    if len(numbers) == 1:
        cells, distances = (
            np.concatenate(rows) for rows in zip(*((p.cells, p.distances) for p in probes), strict=True)
        )
        return ProbeBatch(queries, cells, distances)
    most = max(numbers)
    cells, distances = np.full((len(probes), most), -1, np.int64), np.zeros((len(probes), most), np.float32)
    for row, probe in enumerate(probes):
        assert probe.cells is not None
        cells[row, : probe.nprobe], distances[row, : probe.nprobe] = probe.cells[0], probe.distances
    return ProbeBatch(queries, cells, distances)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have FAISS use the calling thread only: a single query is answered sooner than other threads are woken for it."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@lru_cache(maxsize=64)
def _in_cells(nprobe: int) -> Any:
    """To search so many cells; made once, since that takes as long as a third of a search."""
    return faiss.SearchParametersIVF(nprobe=nprobe)


def search_cells(
    inner: Any, probes: ProbeBatch, k: int, selector: Any = None, *, pairs: bool = False
) -> tuple[Any, Any]:
    """Distances and positions (Q, k) of the nearest entries in the cells of Q queries, −1 where there are fewer; by the
    calling thread, which lets go of Python's lock once for all of them.

    This is the FAISS method behind its Python wrapper: the wrapper reads `nprobe` from the index, this one takes it
    from the call.

    Args:
        pairs: name an entry by its cell, in the upper 32 bits, and its place in the cell's list, not by its position.
    """
    count, nprobe = probes.cells.shape
    distances, positions = np.empty((count, k), dtype=np.float32), np.empty((count, k), dtype=np.int64)
    query, cells, coarse, *found = map(
        faiss.swig_ptr, (probes.queries, probes.cells, probes.distances, distances, positions)
    )
    asked = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector) if selector else _in_cells(nprobe)
    with one_thread() if count > 1 else nullcontext():
        inner.search_preassigned_c(count, query, k, cells, coarse, *found, pairs, asked)
    return distances, positions
