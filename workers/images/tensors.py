"""From decoded pixels to what an extractor reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from workers.images.strips import strips

__all__ = ["planes", "resize", "strips", "to_input"]


def to_input(pixels: NDArray[np.uint8], size: int) -> torch.Tensor:
    """Squash (H, W, 3) uint8 RGB pixels to a (3, size, size) float32 tensor in [0, 1].

    The aspect ratio is given up, as in SSCD (Pizzi et al., 2022): nothing of the image is cut off or padded.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected (H, W, 3) uint8 pixels, got {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[:2]
    narrow = torch.empty(3, height, size)
    for rows in strips(height, width):
        narrow[:, rows] = resize(planes(pixels[rows]), rows.stop - rows.start, size)
    return resize(narrow, size, size).div_(255.0).clamp_(0.0, 1.0)


def planes(samples: NDArray[np.unsignedinteger[Any]]) -> torch.Tensor:
    """(H, W, C) → (C, H, W) float32 of the same values, a copy."""
    return torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.float32))


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear with antialiasing: (C, h, w) float32 → (C, height, width). Rows and columns are scaled independently."""
    return F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False, antialias=True)[0]
