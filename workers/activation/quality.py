"""How far a protected image is from its original."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tasks.results import Quality
from workers.activation.colour_difference import visible_difference
from workers.images.tensors import planes, strips

Pixels = npt.NDArray[np.uint8]
_RADIUS: Final = 5
_BELL: Final = [math.exp(-((i - _RADIUS) ** 2) / (2 * 1.5**2)) for i in range(2 * _RADIUS + 1)]
_WINDOW: Final = [value / sum(_BELL) for value in _BELL]
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


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
    """The mean of the squared differences, and the largest one; strip by strip, in the processor's cache."""
    total, largest = 0.0, 0
    for rows in strips(*original.shape[:2]):
        difference = (protected[rows].astype(np.int16) - original[rows]).ravel()
        largest = max(largest, int(difference.max()), -int(difference.min()))
        exact = difference.astype(np.float32)
        total += float(exact @ exact)
    return total / original.size, largest


def luminance_psnr_db(original: Pixels, protected: Pixels) -> float:
    """The same of their luminance, as is usual for video: blue, which may change most, hardly counts in it."""
    difference = _luminance(protected) - _luminance(original)
    return _psnr_db(float(difference.square().mean(dtype=torch.float64)))


def _psnr_db(mse: float) -> float:
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def ssim(first: Pixels, second: Pixels) -> float:
    """Structural similarity of luminance (Wang et al. 2004: 11 × 11 Gaussian window of 1.5 pixels), 1 for equal images.

    As its authors advise and their own program does, images whose shorter side is of 384 pixels or more are shrunk
    first: by averaging squares of round(side / 256) pixels.

    Our own few lines, because scikit-image's would bring that library and SciPy into every worker; a test holds the two
    against each other.
    """
    factor = max(1, round(min(first.shape[:2]) / 256))
    if factor > 1:
        return ssim(_shrunk(first, factor), _shrunk(second, factor))
    height, width = first.shape[:2]
    if min(height, width) <= 2 * _RADIUS:
        margins = ((_RADIUS, _RADIUS), (_RADIUS, _RADIUS), (0, 0))
        return ssim(np.pad(first, margins, mode="edge"), np.pad(second, margins, mode="edge"))
    total = 0.0
    for rows in strips(height - 2 * _RADIUS, width):
        seen = slice(rows.start, rows.stop + 2 * _RADIUS)
        total += float(_similarity(_luminance(first[seen]), _luminance(second[seen])).sum(dtype=torch.float64))
    return float(total / ((height - 2 * _RADIUS) * (width - 2 * _RADIUS)))


def _shrunk(pixels: Pixels, factor: int) -> Pixels:
    """Means of squares, rounded; what does not fill a square at the right and the bottom is left out."""
    height, width = (side // factor * factor for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels[:height, :width]).reduce(factor))


def _similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """For every place of the window within two images (H, W)."""
    mean_a, mean_b, squares, product = (_gaussian(m) for m in (a, b, a * a + b * b, a * b))
    means, mean_squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    brightness = (2 * means + _C1) / (mean_squares + _C1)
    structure = (2 * (product - means) + _C2) / (squares - mean_squares + _C2)
    return brightness * structure


def _luminance(pixels: Pixels) -> torch.Tensor:
    colours = planes(pixels)
    return colours[0].mul_(0.299).add_(colours[1], alpha=0.587).add_(colours[2], alpha=0.114)


def _gaussian(image: torch.Tensor) -> torch.Tensor:
    """Blur (H, W), without padding. Sums of slices, since a convolution of one channel is slow."""
    height, width = (extent - 2 * _RADIUS for extent in image.shape)
    rows = image[:height] * _WINDOW[0]
    for i, weight in enumerate(_WINDOW[1:], start=1):
        rows.add_(image[i : i + height], alpha=weight)
    blurred = rows[:, :width] * _WINDOW[0]
    for i, weight in enumerate(_WINDOW[1:], start=1):
        blurred.add_(rows[:, i : i + width], alpha=weight)
    return blurred
