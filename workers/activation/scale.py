"""Between an image's own size and the extractor's.

The change is found at the extractor's size and enlarged once at the end; the extractor will see it shrunk again.
Enlarging and shrinking are linear and separable, so what survives of the change is one small matrix for the rows and
one for the columns, and the optimiser can see exactly that, whatever the image's size.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn import functional as F


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear with antialiasing: (C, h, w) float32 → (C, height, width)."""
    return F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False, antialias=True)[0]


@lru_cache(maxsize=512)
def there_and_back(small: int, large: int) -> torch.Tensor:
    """The (small, small) float32 matrix that enlarges a column of `small` values to `large` and shrinks it again."""
    identity = torch.eye(small)[None]
    enlarged = resize(identity, large, small)
    return resize(enlarged, small, small)[0]
