"""Indexes over inverted lists that lie elsewhere: in mapped files, of one segment or of several at once.

Each file of a segment holds its inverted lists only. Centroids and codebooks are the codec's, and are not read again
for every segment: of 65,536 cells and 512 dimensions, the centroids alone are 134 MB.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

__all__ = ["Shells"]

# A table of distances between centroids and sub-centroids saves a third of a search; past this it would cost more
# memory than the codes.
_MOST_TABLE_BYTES: Final = 64 << 20


class Shells:
    """Makes indexes of one codec that own neither centroids nor entries. Thread-safe.

    Args:
        inner: the codec's index with cells, after its transforms; see :class:`workers.index.codec.family.Family`.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._dummy = faiss.IndexFlatL2(inner.d)  # what is cloned in place of the centroids

    def owning(self, lists: Any) -> Any:
        """An index that frees its inverted lists."""
        return self._put_over(lists, self._copied(self._bare), owned=True)

    def over(self, lists: Any, empty: Any = None) -> Any:
        """An index of inverted lists that it does not own; with a copy of the table that makes searches faster, where
        the codec has one.

        Args:
            empty: one of :meth:`empty`, if that was made before.
        """
        return self._put_over(lists, self.empty() if empty is None else empty, owned=False)

    def empty(self) -> Any:
        """An index with a copy of that table, and no lists yet: what takes longest to make."""
        return self._copied(self._with_table)

    @cached_property
    def terms(self) -> npt.NDArray[np.float32] | None:
        """That table, (C, 2048) float32, for each cell and each value of each of a code's eight bytes; None where the
        codec has none, or other codes."""
        index = self._with_table
        if not isinstance(index, faiss.IndexIVFPQ) or index.use_precomputed_table != 1:
            return None
        if (index.pq.M, index.pq.nbits) != (8, 8):
            return None
        table = index.precomputed_table
        return faiss.rev_swig_ptr(table.get(), table.size()).reshape(index.nlist, -1)  # type: ignore[no-any-return]

    def inner_products(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Of queries (Q, T) with the sub-centroids of a code's bytes, (Q, 2048); for a codec that has :attr:`terms`."""
        products = np.empty((len(queries), 2_048), np.float32)
        arrays, quantiser = map(faiss.swig_ptr, (queries, products)), self._inner.pq
        if len(queries) == 1:  # in a third of the time
            quantiser.compute_inner_prod_table(*arrays)
        else:
            quantiser.compute_inner_prod_tables(len(queries), *arrays)
        return products

    def _copied(self, template: Any) -> Any:
        shell = faiss.clone_index(template)
        _use(shell, self._inner.quantizer)
        return shell

    def _put_over(self, lists: Any, shell: Any, *, owned: bool) -> Any:
        shell.replace_invlists(lists, owned)
        shell.ntotal = lists.compute_ntotal()
        shell.referenced_objects = (self._inner, lists)  # which FAISS does not keep alive
        return shell

    @cached_property
    def _bare(self) -> Any:
        index = faiss.clone_index(self._inner)
        if isinstance(index, faiss.IndexIVFPQ):
            index.use_precomputed_table = -1
            index.precomputed_table = faiss.AlignedTableFloat32()
        _use(index, self._dummy)
        return index

    @cached_property
    def _with_table(self) -> Any:
        index = faiss.clone_index(self._inner)
        if isinstance(index, faiss.IndexIVFPQ):
            small = index.nlist * index.pq.M * index.pq.ksub * 4 <= _MOST_TABLE_BYTES
            index.use_precomputed_table = 0 if small else -1
            index.precompute_table()
        _use(index, self._dummy)
        return index


def _use(index: Any, quantizer: Any) -> None:
    """Replace an index' own quantiser by one that it does not own.

    The old one is deleted at once. Python must not be made its owner (`this.own(True)`): of objects that it did not
    own from the beginning, SWIG counts the end only, and tears down its types when none seem to be left.
    """
    replaced = index.quantizer
    index.own_fields = False
    index.quantizer = quantizer
    faiss.Index.__swig_destroy__(replaced)
