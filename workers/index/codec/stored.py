"""Features as a collection stores them beside its codes, so that the best matches can be compared exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from tasks.errors import InvalidRequest
from workers.index.codec.codec import Features

__all__ = ["FeatureFormat", "FeatureType", "Rows", "exact_distances", "kept_twice"]

FeatureType = Literal["float16", "int8"]
# Stored features (N, row_bytes).
Rows = npt.NDArray[np.uint8]

_SCALE_BYTES: Final = 4
_MOST: Final = 127


def kept_twice(
    factory: str, advice: str = "name an index of codes with `--factory`, such as IVF16,PQ8x4"
) -> InvalidRequest:
    """For an index whose codes are features; the usual advice suits a collection of few images, and one whose features
    are stored already."""
    return InvalidRequest(f"The index {factory!r} keeps whole features itself, and compares them exactly: {advice}.")


def exact_distances(feature: Features, others: Features) -> Features:
    """Squared distances (N,) of a feature (D,) to others (N, D)."""
    difference = others - feature
    distances: Features = np.einsum("nd,nd->n", difference, difference)
    return distances


@dataclass(frozen=True)
class FeatureFormat:
    """How a feature (D,) becomes a row of bytes, and back.

    `float16` takes 2 D bytes. `int8` takes D + 4: a float32 scale, then D integers of -127 to 127 to be multiplied by
    it. The squared distance of two features of norm 1, drawn at random, moves by less than a thousandth with `float16`,
    and by less than a hundredth with `int8`.
    """

    type: FeatureType
    dimension: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored feature."""
        return 2 * self.dimension if self.type == "float16" else _SCALE_BYTES + self.dimension

    def encode(self, features: Features) -> Rows:
        """Rows (N, row_bytes) of features (N, D) float32."""
        if self.type == "float16":
            return np.ascontiguousarray(features, dtype="<f2").view(np.uint8)
        scales = np.abs(features).max(axis=1, keepdims=True).astype("<f4") / np.float32(_MOST)
        whole = np.round(features / np.maximum(scales, np.finfo(np.float32).tiny)).astype(np.int8)
        return np.concatenate([np.ascontiguousarray(scales).view(np.uint8), whole.view(np.uint8)], axis=1)

    def decode(self, rows: Rows) -> Features:
        """The features (N, D) float32 of rows (N, row_bytes)."""
        rows = np.ascontiguousarray(rows)
        if self.type == "float16":
            return rows.view("<f2").astype(np.float32)
        scales = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")
        features: Features = rows[:, _SCALE_BYTES:].view(np.int8) * scales
        return features
