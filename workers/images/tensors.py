"""From decoded pixels to what an extractor reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import float32, uint8, void
from numpy.typing import NDArray

from workers.images.compiled import array, compiled, native
from workers.images.kernel_parts import luminance_of
from workers.images.scaling import Floats, Shrinking

__all__ = ["Floats", "as_input", "check_colours", "luminance", "to_input"]


def to_input(pixels: NDArray[np.uint8], size: int) -> torch.Tensor:
    """Squash (H, W, 3) uint8 RGB pixels to a (3, size, size) float32 tensor in [0, 1].

    The aspect ratio is given up, as in SSCD (Pizzi et al., 2022): nothing of the image is cut off or padded.
    """
    check_colours(pixels)
    small = Shrinking(pixels.shape, size)
    small.add(slice(0, len(pixels)), pixels)
    return as_input(small)


def check_colours(*images: NDArray[Any]) -> None:
    """Whether they are (H, W, 3) uint8, and of one size: a kernel would read and write beyond what it is given.

    Raises:
        ValueError: they are not.
    """
    for pixels in images:
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.shape != images[0].shape:
            raise ValueError(f"expected (H, W, 3) uint8 pixels, of one size, got {pixels.shape} {pixels.dtype}")


def as_input(pixels: Shrinking) -> torch.Tensor:
    """(3, size, size) float32 in [0, 1] of pixels in [0, 255] that were all added."""
    square = pixels.square()
    planes = np.empty((3, *square.shape[:2]), np.float32)
    _to_planes(square, planes)
    return torch.from_numpy(planes)


@compiled(void(array(float32, 3), array(float32, 3, written=True)))
def _to_planes(square: Floats, planes: Floats) -> None:
    """(S, S, 3) in [0, 255] → (3, S, S) in [0, 1]."""
    for channel in range(3):
        for y in range(len(square)):
            for x in range(square.shape[1]):
                level = min(max(square[y, x, channel], np.float32(0)), np.float32(255))
                planes[channel, y, x] = level / np.float32(255)


def luminance(pixels: NDArray[np.uint8]) -> Floats:
    """Of RGB pixels (H, W, 3) uint8: (H, W) float32, in their range, by ITU-R BT.601."""
    check_colours(pixels)
    levels = np.empty(pixels.shape[:2], np.float32)
    _luminance(native(pixels).reshape(-1), levels.reshape(-1))
    return levels


@compiled(void(array(uint8, 1), array(float32, 1, written=True)))
def _luminance(pixels: NDArray[np.uint8], levels: Floats) -> None:
    """Of values (N × 3,): (N,)."""
    for i in range(len(levels)):
        red, green, blue = np.float32(pixels[3 * i]), np.float32(pixels[3 * i + 1]), np.float32(pixels[3 * i + 2])
        levels[i] = luminance_of(red, green, blue)
