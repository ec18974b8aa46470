"""Near-duplicates in an archive: re-saved, resized, lightly edited versions of one picture, by their exact features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from workers.index.codec.codec import Features
from workers.index.codec.gpu import Nearest, on_gpu

__all__ = ["groups_of", "near_distance", "neighbours"]

_PAIRS: Final = 200_000
_COMPARED: Final = 1 << 24  # distances in memory at once
_AT_ONCE: Final = 10_000  # pairs of features in memory
_FEW: Final = 64  # near-duplicates of one image, which a GPU is asked for
_ROUNDING: Final = 1e-4  # of a squared distance on a GPU, far more than that of float32
# Distances of unrelated pairs are nearly normal: this many deviations below the median, fewer than one in a million
# lies (`compact`: 0.61, where one in a million has 0.58 and the median is 2.0).
_DEVIATIONS: Final = 5.2
# No unrelated pair is as near, in parts of the median. A burst of a tenth of an archive is one percent of its pairs.
_SURELY_NEAR: Final = 0.2
_ONE_PERCENT: Final = 2.326  # deviations from a normal distribution's median to its first percentile


def near_distance(features: Features) -> float:
    """The squared distance below which two of these features (N, D) are of one picture.

    Told by all pairs, of which duplicates are few even in an archive that is full of them; the nearest are left out.
    """
    random = np.random.default_rng(0)
    first, second = random.integers(0, len(features), (2, _PAIRS))
    different = first != second
    pairs = zip(np.array_split(first[different], 20), np.array_split(second[different], 20), strict=True)
    distances = np.concatenate([2 - 2 * np.einsum("nd,nd->n", features[a], features[b]) for a, b in pairs])
    median = np.median(distances)
    others = distances[distances > _SURELY_NEAR * median]
    low = np.quantile(others, 0.01) if len(others) else 0.0
    return float(max(0.0, median - _DEVIATIONS * (median - low) / _ONE_PERCENT))


def neighbours(queries: Features, features: Features, within: float) -> Iterator[frozenset[int]]:
    """For each query (Q, D), the positions of the features (N, D) within a squared distance."""
    return on_gpu(
        "Finding near-duplicates", float(len(queries)) * features.size,
        lambda gpu: iter(_found_by(gpu.nearest, queries, features, within)),
        lambda: _compared(queries, features, within),
    )  # fmt: skip


def _compared(queries: Features, features: Features, within: float) -> Iterator[frozenset[int]]:
    rows = max(1, _COMPARED // max(len(features), 1))
    for start in range(0, len(queries), rows):
        near = 2 - 2 * queries[start : start + rows] @ features.T < within
        for row in near:
            yield frozenset(np.nonzero(row)[0].tolist())


def _found_by(nearest: Nearest, queries: Features, features: Features, within: float) -> list[frozenset[int]]:
    """A GPU finds the nearest, not those within a distance: it names a few of each query, whose distances decide. A
    query with more of them is compared with all."""
    count = min(_FEW, len(features))
    cosines, positions = nearest(queries, features, count)
    maybe = 2 - 2 * cosines < within + _ROUNDING
    found: list[set[int]] = [set() for _ in queries]
    pairs = np.argwhere(maybe)
    for part in np.array_split(pairs, 1 + len(pairs) // _AT_ONCE):
        rows, others = part[:, 0], positions[part[:, 0], part[:, 1]]
        near = 2 - 2 * np.einsum("nd,nd->n", queries[rows], features[others]) < within
        for row, other in zip(rows[near].tolist(), others[near].tolist(), strict=True):
            found[row].add(other)
    if count < len(features):
        more = np.flatnonzero(maybe[:, -1])
        for row, near_ones in zip(more.tolist(), _compared(queries[more], features, within), strict=True):
            found[row] = set(near_ones)
    return [frozenset(some) for some in found]


def groups_of(features: Features, within: float) -> list[list[int]]:
    """Positions of features (N, D) that are near-duplicates of each other, directly or by way of others; groups of two
    and more, in the order of their first members."""
    leader = list(range(len(features)))

    def find(position: int) -> int:
        while leader[position] != position:
            leader[position] = leader[leader[position]]
            position = leader[position]
        return position

    for position, near in enumerate(neighbours(features, features, within)):
        for other in near:
            a, b = sorted((find(position), find(other)))
            leader[b] = a
    members: dict[int, list[int]] = {}
    for position in range(len(features)):
        members.setdefault(find(position), []).append(position)
    return [group for group in members.values() if len(group) > 1]
