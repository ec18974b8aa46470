"""Targets of activation: where a feature has to move, for any family of index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """Where N features (N, D) should go; what an index does not have (cells, hyperplanes, a transform) is None.

    Some indexes rotate a feature or reduce its dimension first (OPQ, PCA). That linear map, y = matrix · x + offset,
    leads from features of D to the index's own space of T dimensions.

    Attributes:
        points: (N, D), the reconstructions of the codes, or the stored features.
        signs: (N, T) of ±1, the side of each hyperplane y_i = 0 on which the codes lie.
        cells: (N, M, T), centroids: the code's own cell first, then the cells nearest to it.
        matrix: (N, T, D), the same for all N.
        offset: (N, T), likewise.
    """

    points: Array | None = None
    signs: Array | None = None
    cells: Array | None = None
    matrix: Array | None = None
    offset: Array | None = None

    def distance(self, feature: Array) -> float:
        """The distance a search computes for a query's feature (D,), for N = 1: squared L2, or Hamming for signs."""
        if self.points is not None:
            return float(np.square(feature - self.points[0]).sum())
        assert self.signs is not None, "a target has points or signs"
        assert self.matrix is not None, "signs are those of a linear map"
        assert self.offset is not None, "a map has both parts"
        return float(np.count_nonzero((self.matrix[0] @ feature + self.offset[0] >= 0) != (self.signs[0] > 0)))

    @classmethod
    def join(cls, targets: Sequence[Target]) -> Target:
        """Targets of one codec, concatenated."""
        return cls(**{f.name: _joined([getattr(target, f.name) for target in targets]) for f in fields(cls)})


def _joined(parts: Sequence[Array | None]) -> Array | None:
    return None if parts[0] is None else np.concatenate(parts)  # type: ignore[arg-type]  # all are None, or none is
