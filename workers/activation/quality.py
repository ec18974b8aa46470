"""How far a protected image is from its original."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import float32, float64, int64, types, uint8, uint16, void

from tasks.results import Quality
from workers.activation.colour_difference import visible_difference
from workers.images.compiled import Number, array, compiled, native, part_of_kernel
from workers.images.kernel_parts import luminance_of
from workers.images.model import Samples
from workers.images.scaling import Floats
from workers.images.tensors import check_colours, luminance

Pixels = npt.NDArray[np.uint8]
_RADIUS: Final = 5
_BELL: Final = [math.exp(-((i - _RADIUS) ** 2) / (2 * 1.5**2)) for i in range(2 * _RADIUS + 1)]
_WINDOW: Final = np.array([value / sum(_BELL) for value in _BELL], np.float32)
_C1, _C2 = np.float32((0.01 * 255) ** 2), np.float32((0.03 * 255) ** 2)


def quality(original: Pixels, protected: Pixels) -> Quality:
    """Compare two images (H, W, 3) uint8 of one size."""
    mse, linf = _errors(original, protected)
    return Quality(
        psnr_db=round(_psnr_db(mse), 3) if mse else None,
        ssim=round(ssim(original, protected), 5),
        linf=linf,
        delta_e=round(visible_difference(original, protected), 3),
    )


def psnr_db(original: Pixels, protected: Pixels) -> float:
    """Peak signal-to-noise ratio of two images (H, W, 3) uint8; infinite for equal ones."""
    return _psnr_db(_errors(original, protected)[0])


def _errors(original: Pixels, protected: Pixels) -> tuple[float, int]:
    """The mean of the squared differences, and the largest one."""
    check_colours(original, protected)
    total, largest = _differences(*(native(pixels).reshape(-1) for pixels in (original, protected)))
    return total / original.size, largest


@compiled(types.UniTuple(int64, 2)(array(uint8, 1), array(uint8, 1)))
def _differences(first: Pixels, second: Pixels) -> tuple[Number, Number]:
    """The sum of the squared differences of two images (N,), and the largest one."""
    total = lowest = highest = np.int64(0)
    for i in range(len(first)):
        difference = np.int64(second[i]) - np.int64(first[i])
        total += difference * difference
        lowest, highest = min(lowest, difference), max(highest, difference)
    return total, max(highest, -lowest)


def kept_share(original: Samples, meant: Samples, published: Samples) -> float:
    """How much of a change is in what was published, along the change itself: 1 for all of it, and where there is none.

    Args:
        original, meant, published: samples of one shape, and of 8 or 16 bits.
    """
    if not original.shape == meant.shape == published.shape:
        raise ValueError(f"expected samples of one shape, got {original.shape}, {meant.shape} and {published.shape}")
    change, kept = _energies(*(native(samples).reshape(-1) for samples in (original, meant, published)))
    return kept / change if change else 1.0


@compiled(*(types.UniTuple(int64, 2)(*(array(kind, 1),) * 3) for kind in (uint8, uint16)))
def _energies(original: Samples, meant: Samples, published: Samples) -> tuple[Number, Number]:
    """Of three arrays (N,): the sum of the squares of the change, and of its products with what is left of it."""
    change = kept = np.int64(0)
    for i in range(len(original)):
        start = np.int64(original[i])
        wanted, left = np.int64(meant[i]) - start, np.int64(published[i]) - start
        change += wanted * wanted
        kept += wanted * left
    return change, kept


def luminance_psnr_db(original: Pixels, protected: Pixels) -> float:
    """The same of their luminance, as is usual for video: blue, which may change most, hardly counts in it."""
    difference = luminance(protected) - luminance(original)
    return _psnr_db(float(np.square(difference).mean(dtype=np.float64)))


def _psnr_db(mse: float) -> float:
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def ssim(first: Pixels, second: Pixels) -> float:
    """Structural similarity of luminance (Wang et al. 2004: 11 × 11 Gaussian window of 1.5 pixels), 1 for equal images.

    As its authors advise and their own program does, images whose shorter side is of 384 pixels or more are shrunk
    first: by averaging squares of round(side / 256) pixels.

    Our own few lines, because scikit-image's would bring that library and SciPy into every worker; a test holds the two
    against each other.
    """
    check_colours(first, second)
    factor = max(1, round(min(first.shape[:2]) / 256))
    shrunk = [_shrunk(pixels, factor) for pixels in (first, second)]
    if min(shrunk[0].shape) <= 2 * _RADIUS:
        shrunk = [np.pad(image, _RADIUS, mode="edge") for image in shrunk]
    return float(_similarity(*shrunk))


def _shrunk(pixels: Pixels, factor: int) -> Floats:
    """The luminance (H, W) of means of squares; what does not fill a square at the right and the bottom is left out."""
    means = np.empty((len(pixels) // factor, pixels.shape[1] // factor), np.float32)
    _mean_luminance(native(pixels).reshape(len(pixels), -1), factor, means)
    return means


@compiled(void(array(uint8, 2), int64, array(float32, 2, written=True)))
def _mean_luminance(rows: Pixels, factor: int, means: Floats) -> None:
    """See :func:`_shrunk`, of rows (H, W × 3)."""
    height, width = means.shape
    sums, levels = np.empty(3 * width * factor, np.float32), np.empty(width * factor, np.float32)
    for y in range(height):
        for i in range(len(sums)):
            sums[i] = np.float32(rows[y * factor, i])
        for row in range(y * factor + 1, (y + 1) * factor):
            for i in range(len(sums)):
                sums[i] += np.float32(rows[row, i])
        for x in range(len(levels)):
            levels[x] = luminance_of(sums[3 * x], sums[3 * x + 1], sums[3 * x + 2])
        for x in range(width):
            total = np.float32(0)
            for i in range(x * factor, (x + 1) * factor):
                total += levels[i]
            means[y, x] = total / np.float32(factor * factor)


@compiled(float64(array(float32, 2), array(float32, 2)))
def _similarity(first: Floats, second: Floats) -> float:
    """The mean over every place of the window within two images (H, W)."""
    height, width = len(first) - 2 * _RADIUS, first.shape[1] - 2 * _RADIUS
    columns, row = np.empty((4, first.shape[1]), np.float32), np.empty((4, width), np.float32)
    total = 0.0
    for y in range(height):
        _blur_down(first[y : y + 2 * _RADIUS + 1], second[y : y + 2 * _RADIUS + 1], columns)
        _blur_across(columns, row)
        total += _row_similarity(row)
    return float(total / (height * width))


@part_of_kernel
def _blur_down(first: Floats, second: Floats, blurred: Floats) -> None:
    """As many rows (11, W) of two images as the window has, and what is made of them, weighted by it: (4, W) of the
    first, of the second, of the sum of their squares, and of their product."""
    for x in range(first.shape[1]):
        mean_a, mean_b, squares, product = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for i in range(2 * _RADIUS + 1):
            weight, a, b = _WINDOW[i], first[i, x], second[i, x]
            mean_a += weight * a
            mean_b += weight * b
            squares += weight * (a * a + b * b)
            product += weight * (a * b)
        blurred[0, x], blurred[1, x], blurred[2, x], blurred[3, x] = mean_a, mean_b, squares, product


@part_of_kernel
def _blur_across(columns: Floats, blurred: Floats) -> None:
    """(4, W + 10) → (4, W)."""
    for k in range(4):
        for x in range(blurred.shape[1]):
            total = np.float32(0)
            for i in range(2 * _RADIUS + 1):
                total += _WINDOW[i] * columns[k, x + i]
            blurred[k, x] = total


@part_of_kernel
def _row_similarity(blurred: Floats) -> Number:
    """The sum over a row, of (4, W) as :func:`_blur_down` names them."""
    total = 0.0
    for x in range(blurred.shape[1]):
        mean_a, mean_b, squares, product = blurred[0, x], blurred[1, x], blurred[2, x], blurred[3, x]
        means, mean_squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
        brightness = (np.float32(2) * means + _C1) / (mean_squares + _C1)
        structure = (np.float32(2) * (product - means) + _C2) / (squares - mean_squares + _C2)
        total += brightness * structure
    return total
