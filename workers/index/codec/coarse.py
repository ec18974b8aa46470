"""Finds the coarse cells nearest to a feature: most of the time of a search in an index of many cells.

Comparing with all centroids in full precision reads them from memory every time (4,096 × 512: 8 MB, 0.3 ms). Here,
4-bit codes of the centroids, which fit into the processor's cache, select candidates; full precision decides among them
(FAISS' fast-scan product quantiser, after André, Kermarrec and Le Scouarnec, VLDB 2015). Made in memory, never stored.

A graph of the centroids (`IVF4096_HNSW32,…`) also works, but is slower at the same recall. For 512-d features and one
thread: of 4,096 cells, two stages find the nearest in 0.055 ms with recall 0.996, HNSW in 0.19 ms with 0.990; of
65,536, two stages in 0.82 ms with 0.982, HNSW in 13 ms with 0.986, and its graph takes 89 s to build. Hence
`aii index plan` never proposes HNSW.
"""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from workers.index.codec.probes import one_thread

__all__ = ["TWO_STAGE_FLOATS", "Cells"]

# Centroids of fewer numbers (4 MB) stay in the cache anyway.
TWO_STAGE_FLOATS: Final = 1 << 20
# With 64 candidates for each requested cell, the nearest cell and the nearest sixteen were right for 1,000 of 1,000
# random features (4,096 centroids of 512 dimensions); it costs 0.05 ms.
_CANDIDATES: Final = 64
_TRAINING_CENTROIDS: Final = 8_192
# So many features are compared with all centroids faster, by a product of matrices, as FAISS does from twenty on: of
# 4,096 cells, with the nearest sixteen in 0.05 ms each instead of 0.15.
_MANY: Final = 32
_MOST_COMPARED: Final = 16_384


class Cells:
    """The coarse cells of an IVF index. Thread-safe.

    Args:
        quantiser: FAISS index of the centroids.
    """

    def __init__(self, quantiser: Any) -> None:
        flat = isinstance(quantiser, faiss.IndexFlat)
        large = quantiser.ntotal * quantiser.d >= TWO_STAGE_FLOATS and quantiser.d % 2 == 0
        self._index = _two_stages(quantiser) if flat and large else quantiser
        self._exact = quantiser
        self._compares_many = quantiser.ntotal <= _MOST_COMPARED

    def nearest(self, features: npt.NDArray[np.float32], count: int) -> tuple[Any, Any]:
        """Squared distances (N, count) float32 and numbers (N, count) int64 of the cells nearest to features (N, D),
        nearest first."""
        count = min(count, self._exact.ntotal)
        if self._compares_many and len(features) >= _MANY:
            with one_thread():
                return self._exact.search(features, count)  # type: ignore[no-any-return]
        all_are_candidates = count * _CANDIDATES >= self._exact.ntotal
        return (self._exact if all_are_candidates else self._index).search(features, count)  # type: ignore[no-any-return]


def _two_stages(quantiser: Any) -> Any:
    centroids = quantiser.reconstruct_n(0, quantiser.ntotal)
    rough = faiss.IndexPQFastScan(quantiser.d, quantiser.d // 2, 4)
    rough.pq.cp.niter = 2  # more iterations find no more, and make opening slower
    rough.train(centroids[:: max(1, len(centroids) // _TRAINING_CENTROIDS)])
    rough.add(centroids)
    index = faiss.IndexRefine(rough, quantiser)
    index.k_factor = _CANDIDATES
    index.referenced_objects = [rough, quantiser]  # FAISS owns neither
    return index
