"""Parts of kernels of several files: luminance, and roots.

A processor computes many of these roots at a time; those of the mathematical library take one by one most of a kernel's
time. By Newton's method, to some 2e-7 of the value. The first guess divides the exponent, and the mantissa with it, in
the bits of a float32, and is a few percent off.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from workers.images.compiled import Number, part_of_kernel

__all__ = ["LUMINANCE_WEIGHTS", "cube_root", "fifth_root", "luminance_of"]

LUMINANCE_WEIGHTS: Final = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)

_ONE: Final = 0x3F800000  # the bits of 1


@part_of_kernel
def luminance_of(red: Number, green: Number, blue: Number) -> Number:
    """Of a colour in float32."""
    of_red, of_green, of_blue = LUMINANCE_WEIGHTS
    return np.float32(of_red) * red + np.float32(of_green) * green + np.float32(of_blue) * blue


@part_of_kernel
def cube_root(value: Number) -> Number:
    """Of a float32 ≥ 0."""
    root = _first_guess(value, np.float32(1 / 3))
    for _ in range(3):
        root = root * np.float32(2 / 3) + value / (root * root) * np.float32(1 / 3)
    return root


@part_of_kernel
def fifth_root(value: Number) -> Number:
    """Of a float32 ≥ 0."""
    root = _first_guess(value, np.float32(1 / 5))
    for _ in range(3):
        square = root * root
        root = root * np.float32(4 / 5) + value / (square * square) * np.float32(1 / 5)
    return root


@part_of_kernel
def _first_guess(value: Number, power: Number) -> Number:
    bits = np.float32(value).view(np.int32)
    return np.int32(np.int32(bits * power) + np.int32(_ONE * (1 - power))).view(np.float32)
