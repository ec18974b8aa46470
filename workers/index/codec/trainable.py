"""What it takes to train an index: how many features at least, and how many at most are of use."""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np

from tasks.errors import InvalidRequest
from workers.index.codec.codec import Features
from workers.index.codec.family import Family
from workers.index.codec.plan import POINTS_PER_CELL, TRAINS_A_BYTE

__all__ = ["check_trainable", "training_sample"]

# More features than these teach a codec nothing: FAISS itself looks at 256 for each centroid.
_TRAINED_ON: Final = 1_000_000


def training_sample(features: Features, seed: int = 0) -> Features:
    """As many of features (N, D) as teach a codec something, in memory."""
    random = np.random.default_rng(seed)
    return features[np.sort(random.permutation(len(features))[:_TRAINED_ON])]


def check_trainable(factory: str, dimension: int, count: int, what: str) -> None:
    """Whether an index of `dimension`-d features can be trained on `count` of `what`.

    Raises:
        InvalidRequest: it cannot, and the message says how many would do; or there is no such index.
    """
    try:
        index = faiss.index_factory(dimension, factory)
    except RuntimeError as error:
        raise InvalidRequest(f"There is no index {factory!r} of {dimension}-d features: {error}") from error
    cells = _cells(index)
    least = max(cells, _fewest_without_cells(index))
    if count < least:
        better = f" ({POINTS_PER_CELL} a cell: {POINTS_PER_CELL * cells:,})" if cells else ""
        raise InvalidRequest(f"{factory} needs at least {least:,} {what}{better}; there are {count:,}.")


def _cells(index: Any) -> int:
    family = Family(index)
    return int(family.inner.nlist) if family.has_cells else 0


def _fewest_without_cells(index: Any) -> int:
    """One feature for each centroid of a code's parts, and as many as a projection has rows."""
    family, least = Family(index), 1
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(i))
            if isinstance(transform, faiss.OPQMatrix):
                least = max(least, TRAINS_A_BYTE)
            elif isinstance(transform, faiss.PCAMatrix):
                least = max(least, int(transform.d_out))
    quantiser = getattr(family.inner, "pq", None)
    return max(least, int(quantiser.ksub)) if quantiser else least
