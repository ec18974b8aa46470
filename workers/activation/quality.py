"""How far a protected image is from its original."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from tasks.results import Quality

Pixels = npt.NDArray[np.uint8]
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


def quality(original: Pixels, protected: Pixels) -> Quality:
    """Compare two images (H, W, 3) uint8 of one size."""
    psnr = psnr_db(original, protected)
    return Quality(
        psnr_db=round(psnr, 3) if math.isfinite(psnr) else None,
        ssim=round(ssim(original, protected), 5),
        linf=int(np.abs(_difference(original, protected)).max()),
    )


def psnr_db(original: Pixels, protected: Pixels) -> float:
    """Peak signal-to-noise ratio of two images (H, W, 3) uint8; infinite for equal ones."""
    mse = float(np.mean(np.square(_difference(original, protected), dtype=np.int32), dtype=np.float64))
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def _difference(original: Pixels, protected: Pixels) -> npt.NDArray[np.int16]:
    difference: npt.NDArray[np.int16] = protected.astype(np.int16) - original.astype(np.int16)
    return difference


def ssim(first: Pixels, second: Pixels) -> float:
    """Structural similarity of luminance (Wang et al. 2004: 11 × 11 Gaussian window of 1.5 pixels), 1 for equal images.

    Our own few lines, because scikit-image's would bring that library and SciPy into every worker; a test holds the two
    against each other.
    """
    a, b = _luminance(first), _luminance(second)
    moments = _gaussian(torch.stack([a, b, a * a, b * b, a * b])[:, None])[:, 0]
    mean_a, mean_b, aa, bb, ab = moments
    variance_a, variance_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float(((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * structure).mean())


def _luminance(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32)) @ _LUMINANCE


def _gaussian(images: torch.Tensor) -> torch.Tensor:
    """Blur (N, 1, H, W), without padding where the image is large enough."""
    window = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
    window = (window / window.sum())[None, None]
    if min(images.shape[-2:]) < 11:
        images = F.pad(images, (5, 5, 5, 5), mode="replicate")
    return F.conv2d(F.conv2d(images, window[..., None]), window[..., None, :])
