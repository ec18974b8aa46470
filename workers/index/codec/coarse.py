"""Which coarse cells are nearest to a feature: the larger part of a search in an index of many cells.

Comparing with all centroids in full precision reads them from memory every time (4,096 × 512: 8 MB, 0.3 ms). Here 4-bit
codes of the centroids, which fit into the processor's cache, choose candidates, and full precision decides among them
(FAISS' fast-scan product quantiser, after André, Kermarrec and Le Scouarnec, VLDB 2015). Nothing of this is stored.

A graph of the centroids (`IVF4096_HNSW32,…`) works as well, and is slower at the same recall. 512-d, one thread, the
nearest cell: of 4,096, two stages 0.055 ms for 0.996 of the right ones, HNSW 0.19 ms for 0.990; of 65,536, 0.82 ms
for 0.982 and 13 ms for 0.986, after 89 s to build the graph. Hence `aii index plan` proposes none.
"""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

__all__ = ["WORTH_TWO_STAGES", "Cells"]

# Below so many numbers (4 MB) the centroids stay in the cache anyway.
WORTH_TWO_STAGES: Final = 1 << 20
# Measured on 4,096 centroids of 512-d features without structure: with 64 candidates for each cell that is asked for,
# the nearest cell, and all of the nearest sixteen, were the right ones 1,000 times of 1,000; it costs 0.05 ms.
_CANDIDATES: Final = 64
_TRAINED_ON: Final = 8_192


class Cells:
    """The coarse cells of an IVF index. Thread-safe.

    Args:
        quantiser: FAISS index of the centroids.
    """

    def __init__(self, quantiser: Any) -> None:
        flat = isinstance(quantiser, faiss.IndexFlat)
        worth_it = quantiser.ntotal * quantiser.d >= WORTH_TWO_STAGES and quantiser.d % 2 == 0
        self._index = _two_stages(quantiser) if flat and worth_it else quantiser
        self._exact = quantiser

    def nearest(self, feature: npt.NDArray[np.float32], count: int) -> tuple[Any, Any]:
        """Squared distances (1, count) float32 and numbers (1, count) int64 of the cells nearest to one feature (1, D),
        nearest first."""
        several = min(count, self._exact.ntotal)
        every_candidate = several * _CANDIDATES >= self._exact.ntotal
        return (self._exact if every_candidate else self._index).search(feature, several)  # type: ignore[no-any-return]


def _two_stages(quantiser: Any) -> Any:
    centroids = quantiser.reconstruct_n(0, quantiser.ntotal)
    rough = faiss.IndexPQFastScan(quantiser.d, quantiser.d // 2, 4)
    rough.pq.cp.niter = 2  # more made it no better, and opening slower
    rough.train(centroids[:: max(1, len(centroids) // _TRAINED_ON)])
    rough.add(centroids)
    index = faiss.IndexRefine(rough, quantiser)
    index.k_factor = _CANDIDATES
    index.referenced_objects = [rough, quantiser]  # FAISS owns neither
    return index
