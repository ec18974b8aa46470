"""Between an image's own size and the extractor's.

The change is found at the extractor's size and enlarged once at the end; the extractor will see it shrunk again.
Enlarging and shrinking are linear and separable, so what remains of the change is one small matrix for the rows and
one for the columns, and the optimiser can compute exactly that, whatever the image's size.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from workers.images.tensors import resize


@lru_cache(maxsize=128)
def enlarging_matrix(small: int, large: int) -> torch.Tensor:
    """The (large, small) float32 matrix that enlarges a column of `small` values to `large`."""
    return resize(torch.eye(small)[None], large, small)[0]


@lru_cache(maxsize=512)
def round_trip_matrix(small: int, large: int) -> torch.Tensor:
    """The (small, small) float32 matrix that enlarges a column of `small` values to `large` and shrinks it again."""
    return resize(enlarging_matrix(small, large)[None], small, small)[0]
