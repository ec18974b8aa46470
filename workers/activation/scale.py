"""Between an image's own size and the extractor's.

The change is found at the extractor's size and enlarged once at the end; the extractor will see it shrunk again.
Enlarging and shrinking are linear and separable, so what remains of the change is one small matrix for the rows and
one for the columns, and the optimiser can compute exactly that, whatever the image's size.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from workers.images.tensors import row_weights


@lru_cache(maxsize=512)
def round_trip_matrix(small: int, large: int) -> torch.Tensor:
    """The (small, small) float32 matrix that enlarges a column of `small` values to `large` and shrinks it again."""
    return torch.from_numpy(row_weights(large, small) @ row_weights(small, large))
