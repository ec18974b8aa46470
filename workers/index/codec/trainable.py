"""How many features an index needs for its training, and how many at most are of use."""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np

from tasks.errors import InvalidRequest
from workers.index.codec.codec import Features
from workers.index.codec.family import Family, make_index
from workers.index.codec.plan import BYTE_CENTROIDS, POINTS_PER_CELL

__all__ = ["check_trainable", "training_sample"]

# More features do not help: FAISS itself uses at most 256 for each centroid.
_MOST_FEATURES: Final = 1_000_000


def training_sample(features: Features, seed: int = 0) -> Features:
    """A random sample of features (N, D), at most a million, in memory."""
    random = np.random.default_rng(seed)
    return features[np.sort(random.permutation(len(features))[:_MOST_FEATURES])]


def check_trainable(factory: str, dimension: int, count: int, what: str) -> None:
    """Check that an index of `dimension`-d features can be trained on `count` of them.

    Args:
        what: a word for the things counted, for the message.

    Raises:
        InvalidRequest: there are too few, and the message says how many are needed; or there is no such index.
    """
    index = make_index(dimension, factory)
    cells = _cells(index)
    least = max(cells, _fewest_without_cells(index))
    if count < least:
        better = f" ({POINTS_PER_CELL} a cell: {POINTS_PER_CELL * cells:,})" if cells else ""
        raise InvalidRequest(f"{factory} needs at least {least:,} {what}{better}; there are {count:,}.")


def _cells(index: Any) -> int:
    family = Family(index)
    return int(family.inner.nlist) if family.has_cells else 0


def _fewest_without_cells(index: Any) -> int:
    """One feature for each centroid of a code's parts, and as many as a projection has output dimensions."""
    family, least = Family(index), 1
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(i))
            if isinstance(transform, faiss.OPQMatrix):
                least = max(least, BYTE_CENTROIDS)
            elif isinstance(transform, faiss.PCAMatrix):
                least = max(least, int(transform.d_out))
    quantiser = getattr(family.inner, "pq", None)
    return max(least, int(quantiser.ksub)) if quantiser else least
