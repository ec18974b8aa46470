"""The just-noticeable-difference map: by how much each pixel may change before a person sees it.

Luminance adaptation and contrast masking after Wu et al., "Enhanced just noticeable difference model for images with
pattern complexity", IEEE TIP 2017, as used in the paper (section 3.3); channel weights as in the paper's appendix.
"""

from __future__ import annotations

from typing import Final

import torch
from torch.nn import functional as F

from workers.extractors.network import IMAGENET_STD

# The eye is most sensitive to green: a channel may change in inverse proportion to its weight in luminance. The
# remaining factors put the map, which the paper applies to ImageNet-normalised values, into [0, 1] pixel values.
_LUMINANCE: Final = (0.299, 0.587, 0.114)
CHANNEL_WEIGHTS: Final = tuple(0.072 / w * s for w, s in zip(_LUMINANCE, IMAGENET_STD, strict=True))

_BACKGROUND: Final = torch.tensor(
    [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 0, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]], dtype=torch.float32
).div(32)[None, None]
_SOBEL_X: Final = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float32)[None, None]
_SOBELS: Final = torch.cat([_SOBEL_X, _SOBEL_X.transpose(2, 3)])

_OVERLAP: Final = 0.3  # how much of the weaker effect the stronger one covers
_CONTRAST_GAIN: Final = 0.117


def jnd_map(pixels: torch.Tensor) -> torch.Tensor:
    """Visibility threshold of each pixel.

    Args:
        pixels: (3, H, W) float32, RGB in [0, 255].

    Returns:
        (1, H, W) float32, ≥ 0, in units of the full range: a threshold of ten grey levels is 10/255.
    """
    luminance = sum(w * channel for w, channel in zip(_LUMINANCE, pixels, strict=True))[None, None]
    adaptation = _luminance_adaptation(luminance)
    masking = _contrast_masking(luminance)
    both = adaptation + masking - _OVERLAP * torch.minimum(adaptation, masking)
    return both[0].div_(255.0)


def _luminance_adaptation(luminance: torch.Tensor) -> torch.Tensor:
    """Differences show least in the dark and in the bright; `luminance` is (1, 1, H, W) in [0, 255]."""
    background = F.conv2d(F.pad(luminance, (2, 2, 2, 2), mode="replicate"), _BACKGROUND)
    dark = 17 * (1 - torch.sqrt(background.clamp(min=0) / 127)) + 3
    bright = 3 / 128 * (background - 127) + 3
    return torch.where(background < 127, dark, bright)


def _contrast_masking(luminance: torch.Tensor) -> torch.Tensor:
    """Differences hide beside strong edges."""
    gradient = F.conv2d(F.pad(luminance, (1, 1, 1, 1), mode="replicate"), _SOBELS)
    contrast2 = gradient.square().sum(dim=1, keepdim=True)
    return _CONTRAST_GAIN * 16 * contrast2.pow(1.2) / (contrast2 + 26**2)
