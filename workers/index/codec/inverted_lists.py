"""Files of inverted lists, written list by list: what a merge takes of memory does not grow with what is merged.

Layout, which is FAISS' own: ``ilar`` | number of lists | bytes of a code | ``full`` and the size of each list, or
``sprs`` and the number and size of each that is not empty | of each such list, its codes and then its positions. Before
the sizes comes how many numbers they are. Numbers are uint64, little endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Codes, Positions
from workers.index.codec.family import Family
from workers.index.codec.kept import Kept

__all__ = ["LISTS", "numbers_of", "write_header", "write_lists"]

# How a file of inverted lists begins; one of a whole index, as earlier versions wrote, begins with its class.
LISTS: Final = b"ilar"
_BUFFER: Final = 1 << 20


class _Source(Protocol):
    """Entries, cell by cell."""

    def sizes(self) -> npt.NDArray[np.int64]:
        """How many there are in each cell."""

    def read(self, cell: int) -> tuple[Codes, Positions]:
        """Those in a cell: codes without the cell's number, and positions (M,) int64 in the file."""


def write_lists(codec: Codec, parts: Sequence[tuple[Any, Kept]], codes: Codes, path: Path) -> None:
    """Write the entries of some indexes with cells that are kept, and then codes (N, code_size) at the next positions.

    Beside the codes, this takes 16 bytes for each of those, and the longest list.
    """
    first = sum(len(kept) for _, kept in parts)
    sources: list[_Source] = [*(_Mapped(index, kept) for index, kept in parts), _Added(codec, codes, first)]
    sizes = np.array([source.sizes() for source in sources])
    with path.open("wb", buffering=_BUFFER) as file:
        write_header(file, sizes.sum(axis=0), codec.code_size - codec.cell_size)
        for cell in np.flatnonzero(sizes.any(axis=0)).tolist():
            read = [source.read(cell) for source, size in zip(sources, sizes[:, cell], strict=True) if size]
            file.writelines(np.ascontiguousarray(listed).data for listed, _ in read)
            file.writelines(np.ascontiguousarray(positions, dtype="<i8").data for _, positions in read)


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
    """Those of an index, which may be mapped, that are kept."""

    def __init__(self, index: Any, kept: Kept) -> None:
        inner = Family(index).inner
        self._lists, self._code_size, self._kept = inner.invlists, inner.code_size, kept

    def sizes(self) -> npt.NDArray[np.int64]:
        cells = range(self._lists.nlist)
        if self._kept.all:
            return np.fromiter(map(self._lists.list_size, cells), dtype=np.int64)
        return np.fromiter((np.count_nonzero(self._kept.mask[self._ids(cell)]) for cell in cells), dtype=np.int64)

    def read(self, cell: int) -> tuple[Codes, Positions]:
        ids = self._ids(cell)
        codes = faiss.rev_swig_ptr(self._lists.get_codes(cell), len(ids) * self._code_size)
        codes = codes.reshape(len(ids), self._code_size)
        if not self._kept.all:
            chosen = self._kept.mask[ids]
            ids, codes = ids[chosen], codes[chosen]
        return codes, self._kept.moved(ids)

    def _ids(self, cell: int) -> Positions:
        if not (count := self._lists.list_size(cell)):
            return np.empty(0, dtype=np.int64)
        return faiss.rev_swig_ptr(self._lists.get_ids(cell), count)  # type: ignore[no-any-return]


class _Added:
    """Codes that are in no index yet, in order of their cells."""

    def __init__(self, codec: Codec, codes: Codes, first: int) -> None:
        self._codes, self._cell_size, self._first = codes, codec.cell_size, first
        cells = codec.cells_of(codes)
        if len(cells) and int(cells.max()) >= codec.cells:
            raise ValueError(f"A code names the cell {int(cells.max())}; there are {codec.cells}.")
        self._order = np.argsort(cells, kind="stable")
        self._sizes = np.bincount(cells, minlength=codec.cells)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def sizes(self) -> npt.NDArray[np.int64]:
        return self._sizes

    def read(self, cell: int) -> tuple[Codes, Positions]:
        start = self._starts[cell]
        chosen = self._order[start : start + self._sizes[cell]]
        return self._codes[chosen, self._cell_size :], chosen + self._first
