"""Between an image's own size and the extractor's.

The change is found at the extractor's size and enlarged once at the end; the extractor will see it shrunk again.
Enlarging and shrinking are linear and separable, so what remains of the change is one small matrix for the rows and
one for the columns, and the optimiser can compute exactly that, whatever the image's size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from workers.images.scaling import band


@lru_cache(maxsize=512)
def round_trip_matrix(small: int, large: int) -> torch.Tensor:
    """The (small, small) float32 matrix that enlarges a column of `small` values to `large` and shrinks it again."""
    enlarging, shrinking = band(small, large), band(large, small)
    between = shrinking.first[:, np.newaxis] + np.arange(shrinking.weights.shape[1])  # which of `large`, for each row
    weights = shrinking.weights[..., np.newaxis] * enlarging.weights[between]
    columns = enlarging.first[between][..., np.newaxis] + np.arange(enlarging.weights.shape[1])
    places = np.arange(small)[:, np.newaxis, np.newaxis] * small + columns
    matrix = np.bincount(places.ravel(), weights.ravel(), minlength=small * small)
    return torch.from_numpy(matrix.reshape(small, small).astype(np.float32))
