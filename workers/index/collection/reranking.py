"""Exact re-ranking: the entries that codes say are nearest, compared by their stored features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from workers.index.codec.codec import Features
from workers.index.codec.stored import FeatureFormat, exact_distances
from workers.index.collection.segment import Hit

__all__ = ["RERANKED", "reranked"]

# How many of the nearest codes are compared exactly. Each reads one row of a mapped file.
RERANKED: Final = 100


def reranked(feature: Features, hits: Sequence[Hit], stored: FeatureFormat) -> list[Hit]:
    """Hits by the squared distances of their stored features to a feature (D,), nearest first. One without a stored
    feature keeps its distance."""
    rows = [hit.feature for hit in hits if hit.feature is not None]
    if not rows:
        return sorted(hits, key=lambda hit: hit.distance)
    exact = iter(exact_distances(feature, stored.decode(np.stack(rows))).tolist())
    moved = [hit if hit.feature is None else hit._replace(distance=next(exact)) for hit in hits]
    return sorted(moved, key=lambda hit: hit.distance)
