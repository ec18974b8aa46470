"""Bilinear scaling with antialiasing, rows and columns one after the other, as torch's ``interpolate`` does it.

A value of the result is a weighted mean of a few values of the source that lie beside each other: a :class:`Band`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import float32, int64, uint8, void
from numpy.typing import NDArray

from workers.images.compiled import array, compiled, native, part_of_kernel

__all__ = ["Band", "Floats", "Shrinking", "band", "columns_scaled"]

Floats = NDArray[np.float32]
_Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Band:
    """How a column of values is scaled.

    Attributes:
        first: (target,) for each value of the result, the first of the source's that count.
        weights: (target, taps) float32, theirs and those of the next ones; each row adds up to 1.
    """

    first: _Positions
    weights: Floats


@lru_cache(maxsize=512)
def band(source: int, target: int) -> Band:
    """From `source` values to `target`: a triangle as wide as what it makes one value of, and when it enlarges, as
    two values."""
    scale = source / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    taps = min(source, math.ceil(2 * reach))
    first = np.clip(np.floor(centres - reach + 0.5).astype(np.int64), 0, source - taps)
    middles = first[:, np.newaxis] + np.arange(taps) + 0.5
    weights = np.clip(1.0 - np.abs(middles - centres[:, np.newaxis]) / reach, 0.0, None)
    return Band(first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


class Shrinking:
    """An image (H, W, C) on its way to (size, size, C), strip by strip.

    Rows come first, as sums of whole rows, which lie one after the other in memory; few columns of them are left to be
    picked apart by channels.
    """

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        self._band = band(shape[0], size)
        self._sums = np.zeros((size, *shape[1:]), np.float32)

    def add(self, rows: slice, values: NDArray[np.uint8] | Floats) -> None:
        """The values (h, W, C) of some rows, uint8 or float32."""
        if values.shape[1:] != self._sums.shape[1:]:
            raise ValueError(f"expected rows of {self._sums.shape[1:]}, got {values.shape[1:]}")
        flat = native(values).reshape(len(values), -1)
        _add_rows(flat, rows.start, self._band.first, self._band.weights, self._sums.reshape(len(self._sums), -1))

    def square(self) -> Floats:
        """(size, size, C) float32, once all rows were added."""
        return columns_scaled(self._sums, len(self._sums))


def columns_scaled(image: Floats, width: int) -> Floats:
    """(h, w, C) → (h, width, C), float32."""
    across = band(image.shape[1], width)
    result = np.empty((len(image), width, image.shape[2]), np.float32)
    _scale_columns(native(image), across.first, across.weights, result)
    return result


_BAND = array(int64, 1), array(float32, 2)


@compiled(*(void(array(kind, 2), int64, *_BAND, array(float32, 2, written=True)) for kind in (uint8, float32)))
def _add_rows(rows: NDArray[Any], top: int, first: _Positions, weights: Floats, sums: Floats) -> None:
    """Add to each of the `sums` (target, N) what some rows (h, N) of the source, from row `top` on, give to it."""
    taps = weights.shape[1]
    for target in range(len(sums)):
        start = first[target] - top
        total = sums[target]
        for row in range(max(start, 0), min(start + taps, len(rows))):
            weight, values = weights[target, row - start], rows[row]
            for x in range(len(values)):
                total[x] += weight * np.float32(values[x])


@compiled(void(array(float32, 3), *_BAND, array(float32, 3, written=True)))
def _scale_columns(image: Floats, first: _Positions, weights: Floats, result: Floats) -> None:
    """Scale an image (h, w, C) in width, by the band of its columns. With three channels written out it takes half of
    the time."""
    for y in range(len(image)):
        if image.shape[2] == 3:
            _scale_colours(image[y], first, weights, result[y])
        else:
            _scale_values(image[y], first, weights, result[y])


@part_of_kernel
def _scale_colours(row: Floats, first: _Positions, weights: Floats, result: Floats) -> None:
    for x in range(len(result)):
        red, green, blue = np.float32(0), np.float32(0), np.float32(0)
        for tap in range(weights.shape[1]):
            weight, source = weights[x, tap], first[x] + tap
            red += weight * row[source, 0]
            green += weight * row[source, 1]
            blue += weight * row[source, 2]
        result[x, 0], result[x, 1], result[x, 2] = red, green, blue


@part_of_kernel
def _scale_values(row: Floats, first: _Positions, weights: Floats, result: Floats) -> None:
    for x in range(len(result)):
        for channel in range(row.shape[1]):
            total = np.float32(0)
            for tap in range(weights.shape[1]):
                total += weights[x, tap] * row[first[x] + tap, channel]
            result[x, channel] = total
