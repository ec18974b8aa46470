"""How far a protected image is from its original."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from tasks.results import Quality
from workers.activation.colour_difference import visible_difference
from workers.images.tensors import Floats, luminance, strips

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
    factor = max(1, round(min(first.shape[:2]) / 256))
    shrunk = [_shrunk(pixels, factor) for pixels in (first, second)]
    if min(shrunk[0].shape) <= 2 * _RADIUS:
        shrunk = [np.pad(image, _RADIUS, mode="edge") for image in shrunk]
    return float(_similarity(*shrunk).mean(dtype=torch.float64))


def _shrunk(pixels: Pixels, factor: int) -> Floats:
    """The luminance (H, W) of means of squares; what does not fill a square at the right and the bottom is left out."""
    height, width = (side // factor for side in pixels.shape[:2])
    rows = pixels[: height * factor, : width * factor].reshape(height, factor, -1)
    sums = rows[:, 0].astype(np.uint16)  # holds what 257 rows add up to, of an image 65,000 pixels wide
    for i in range(1, factor):
        sums += rows[:, i]
    columns = luminance(sums.reshape(height, width * factor, 3)).reshape(height, width, factor)
    means = columns[..., 0]
    for i in range(1, factor):
        means = means + columns[..., i]
    return means / np.float32(factor**2)


def _similarity(first: Floats, second: Floats) -> torch.Tensor:
    """For every place of the window within two images (H, W)."""
    a, b = torch.from_numpy(first), torch.from_numpy(second)
    mean_a, mean_b, squares, product = (_gaussian(m) for m in (a, b, a * a + b * b, a * b))
    means, mean_squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    brightness = (2 * means + _C1) / (mean_squares + _C1)
    structure = (2 * (product - means) + _C2) / (squares - mean_squares + _C2)
    return brightness * structure


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
