"""Compares queries with codes of eight bytes in inverted lists, as FAISS' ``IndexIVFPQ`` does, as machine code.

Where a processor has instructions that gather, FAISS reads its tables of distances by these: 13 ns a code with AVX512,
of which plain loads take 4 to 5, in lists of a thousand codes; in lists of 64 it is 21 to 31, and 14 to 23. FAISS'
choice of instructions is the whole process', and without any the nearest cells are found seven times as slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import float32, int64, uint8, void

from workers.images.compiled import Number, array, compiled, part_of_kernel
from workers.index.codec.mapped_lists import MappedLists, memory_of
from workers.index.codec.probes import ProbeBatch
from workers.index.codec.shells import Shells

__all__ = ["PLACE_BITS", "Scan"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_CODE_SIZE: Final = 8
PLACE_BITS: Final = 32  # of the name of an entry, as FAISS makes it: its place in a list; above them, the list


class Scan:
    """Searches the lists of some indexes, each behind that of the index before. Thread-safe.

    Args:
        shells: of a codec that has :attr:`workers.index.codec.shells.Shells.terms`.
    """

    def __init__(self, shells: Shells, lists: Sequence[MappedLists]) -> None:
        assert shells.terms is not None
        self._shells, self._terms = shells, shells.terms
        self._lists = list(lists)  # which keep their files mapped
        self._memory, first = memory_of([(one.codes, one.code_size * one.sizes) for one in lists])
        self._sizes = np.array([one.sizes for one in lists])
        self._starts = np.where(self._sizes > 0, np.array([one.codes for one in lists]) - first, 0)

    def search(self, probes: ProbeBatch, k: int) -> tuple[Floats, Integers]:
        """Squared distances (Q, k) of the nearest entries in the cells of Q queries, nearest first, and their cells, in
        the upper 32 bits, and places in the cell's list; −1 where there are fewer."""
        shape, tables = (len(probes.queries), k), self._shells.inner_products(probes.queries)
        distances, labels = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int64)
        # Of queries in the same cells, ranges of columns are sometimes left out: a kernel takes contiguous arrays.
        cells, coarse = np.ascontiguousarray(probes.cells), np.ascontiguousarray(probes.distances)
        _search(self._memory, self._starts, self._sizes, self._terms, tables, cells, coarse, distances, labels)
        return distances, labels


@compiled(
    void(
        array(uint8, 1), array(int64, 2), array(int64, 2), array(float32, 2), array(float32, 2), array(int64, 2),
        array(float32, 2), array(float32, 2, written=True), array(int64, 2, written=True),
    )
)  # fmt: skip
def _search(  # noqa: PLR0913, PLR0917  # a kernel takes arrays
    memory: npt.NDArray[np.uint8], starts: Integers, sizes: Integers, terms: Floats, tables: Floats, cells: Integers,
    coarse: Floats, distances: Floats, labels: Integers,
) -> None:  # fmt: skip
    """Each row of `distances` and `labels` is a heap, its farthest entry first, until it is sorted."""
    table = np.empty(terms.shape[1], np.float32)
    for query in range(cells.shape[0]):
        nearest, names = distances[query], labels[query]
        for probe in range(cells.shape[1]):
            cell = cells[query, probe]
            if cell < 0:
                continue
            for i in range(len(table)):
                table[i] = terms[cell, i] - np.float32(2) * tables[query, i]
            name = cell << PLACE_BITS
            for index in range(len(sizes)):
                start, size = starts[index, cell], sizes[index, cell]
                codes = memory[start : start + _CODE_SIZE * size].view(np.uint64)
                _scan(codes, table, coarse[query, probe], name, nearest, names)
                name += size
        _sort(nearest, names)


@part_of_kernel
def _scan(codes: Number, table: Number, coarse: Number, name: Number, nearest: Number, names: Number) -> None:
    """One list. Four codes at a time take three quarters of the time of one by one."""
    size = len(codes)
    for first in range(0, size - 3, 4):
        one, two = _distance(codes[first], table), _distance(codes[first + 1], table)
        three, four = _distance(codes[first + 2], table), _distance(codes[first + 3], table)
        if coarse + min(one, two, three, four) < nearest[0]:
            for place, distance in enumerate((one, two, three, four)):
                _offer(coarse + distance, name + first + place, nearest, names)
    for place in range(size // 4 * 4, size):
        _offer(coarse + _distance(codes[place], table), name + place, nearest, names)


@part_of_kernel
def _distance(code: Number, table: Number) -> Number:
    """Of a code, without the distance of its cell's centroid."""
    one, two = _part(table, code, 0) + _part(table, code, 1), _part(table, code, 2) + _part(table, code, 3)
    three, four = _part(table, code, 4) + _part(table, code, 5), _part(table, code, 6) + _part(table, code, 7)
    return (one + two) + (three + four)


@part_of_kernel
def _part(table: Number, code: Number, byte: Number) -> Number:
    """Unsigned numbers all through: of others numba asks whether they are negative."""
    of_byte = (code >> np.uint64(8 * byte)) & np.uint64(255)
    return table[np.uint64(256 * byte) + of_byte]


@part_of_kernel
def _offer(distance: Number, name: Number, nearest: Number, names: Number) -> None:
    if distance < nearest[0]:
        _sink(distance, name, nearest, names, len(nearest))


@part_of_kernel
def _sink(distance: Number, name: Number, nearest: Number, names: Number, size: Number) -> None:
    """Replace the first entry of a heap of so many by another."""
    at, child = 0, 1
    while child < size:
        if child + 1 < size and nearest[child + 1] > nearest[child]:
            child += 1
        if nearest[child] <= distance:
            break
        nearest[at], names[at] = nearest[child], names[child]
        at, child = child, 2 * child + 1
    nearest[at], names[at] = distance, name


@part_of_kernel
def _sort(nearest: Number, names: Number) -> None:
    for last in range(len(nearest) - 1, 0, -1):
        distance, name = nearest[last], names[last]
        nearest[last], names[last] = nearest[0], names[0]
        _sink(distance, name, nearest, names, last)
