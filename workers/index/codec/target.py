"""What a code asks of an image's feature, in the terms of its index's family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """Where N features (N, D) should go; an index without cells, or without hyperplanes, leaves those parts out.

    Some indexes turn or shorten a feature first (OPQ, PCA): that linear map, y = matrix · x + offset, leads from the
    space of features to the space of the index, which has T dimensions.

    Attributes:
        points: (N, D), what the codes stand for in a search: reconstructions, or stored features.
        signs: (N, T) of ±1, the side of each hyperplane y_i = 0 on which the codes lie.
        cells: (N, M, T), centroids of the coarse cells nearest to the code's own, which is the first.
        matrix: (N, T, D), the same for all N.
        offset: (N, T), likewise.
    """

    points: Array | None = None
    signs: Array | None = None
    cells: Array | None = None
    matrix: Array | None = None
    offset: Array | None = None

    def distance(self, feature: Array) -> float:
        """What a search compares a query's feature (D,) by, for N = 1: squared L2, or Hamming's."""
        if self.points is not None:
            return float(np.square(feature - self.points[0]).sum())
        assert self.signs is not None, "an target has points or signs"
        assert self.matrix is not None, "signs are taken of a linear map"
        assert self.offset is not None, "as above"
        return float(np.count_nonzero((self.matrix[0] @ feature + self.offset[0] >= 0) != (self.signs[0] > 0)))

    @classmethod
    def join(cls, targets: Sequence[Target]) -> Target:
        """Aims of one codec, one after the other."""
        return cls(**{f.name: _joined([getattr(target, f.name) for target in targets]) for f in fields(cls)})


def _joined(parts: Sequence[Array | None]) -> Array | None:
    return None if parts[0] is None else np.concatenate(parts)  # type: ignore[arg-type]  # all are there, or none
