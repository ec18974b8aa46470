"""From decoded pixels to what an extractor reads."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from workers.images.strips import strips

__all__ = ["Floats", "Shrinking", "floats", "luminance", "resize", "row_weights", "strips", "to_input"]

Floats = NDArray[np.float32]

# Those of longer sides are not kept: 32 of 65,535 pixels would take more than a gigabyte.
_LONGEST_KEPT: Final = 16_384
_VALUES_AT_ONCE: Final = 1 << 20
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def to_input(pixels: NDArray[np.uint8], size: int) -> torch.Tensor:
    """Squash (H, W, 3) uint8 RGB pixels to a (3, size, size) float32 tensor in [0, 1].

    The aspect ratio is given up, as in SSCD (Pizzi et al., 2022): nothing of the image is cut off or padded.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected (H, W, 3) uint8 pixels, got {pixels.shape} {pixels.dtype}")
    small = Shrinking(pixels.shape, size)
    for rows in strips(*pixels.shape[:2]):
        small.add(rows, floats(pixels[rows]))
    return as_input(small)


def as_input(pixels: Shrinking) -> torch.Tensor:
    """(3, size, size) float32 in [0, 1] of pixels in [0, 255] that were all added."""
    return pixels.square().div_(255.0).clamp_(0.0, 1.0)


class Shrinking:
    """An image (H, W, C) on its way to (C, size, size), strip by strip: bilinear with antialiasing.

    Rows come first, as sums of whole rows, which lie one after the other in memory; few columns of them are left to be
    picked apart by channels.
    """

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        self._weights = row_weights(shape[0], size)
        self._sums = np.zeros((size, *shape[1:]), np.float32)

    def add(self, rows: slice, values: Floats) -> None:
        """The values (h, W, C) of some rows."""
        weights = self._weights[:, rows]
        used = np.flatnonzero(weights.any(axis=1))
        first, last = used[0], used[-1] + 1
        sums = weights[first:last] @ values.reshape(len(values), -1)
        self._sums[first:last] += sums.reshape(self._sums[first:last].shape)

    def square(self) -> torch.Tensor:
        """(C, size, size) float32, once all rows were added."""
        size = len(self._sums)
        return resize(torch.from_numpy(self._sums).permute(2, 0, 1).contiguous(), size, size)


def row_weights(source: int, target: int) -> Floats:
    """The (target, source) matrix that :func:`resize` scales a column of values with: a triangle as wide as what it
    makes one value of, and when it enlarges, as two values."""
    if max(source, target) > _LONGEST_KEPT:
        return _row_weights(source, target)
    return _kept_row_weights(source, target)


def _row_weights(source: int, target: int) -> Floats:
    """Some rows at a time, for what is computed on the way has double precision."""
    result = np.empty((target, source), np.float32)
    scale = source / target
    middles, together = np.arange(source) + 0.5, max(1, _VALUES_AT_ONCE // source)
    for first in range(0, target, together):
        centres = (np.arange(first, min(first + together, target))[:, np.newaxis] + 0.5) * scale
        weights = np.clip(1.0 - np.abs(middles - centres) / max(scale, 1.0), 0.0, None)
        result[first : first + together] = weights / weights.sum(axis=1, keepdims=True)
    return result


_kept_row_weights = lru_cache(maxsize=32)(_row_weights)


def luminance(pixels: NDArray[np.unsignedinteger[Any]] | Floats) -> Floats:
    """Of RGB pixels (H, W, 3): (H, W), in their range."""
    levels: Floats = floats(pixels) @ _LUMINANCE
    return levels


def floats(samples: NDArray[np.unsignedinteger[Any]] | Floats) -> Floats:
    """The same values, one after the other in memory."""
    return np.ascontiguousarray(samples, dtype=np.float32)


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear with antialiasing: (C, h, w) float32 → (C, height, width). Rows and columns are scaled independently."""
    return F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False, antialias=True)[0]
