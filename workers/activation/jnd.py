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

REACH: Final = 2  # rows and columns around a pixel that have a say in its threshold
_OVERLAP: Final = 0.3  # how much of the weaker effect the stronger one covers
_CONTRAST_GAIN: Final = 0.117
# The model allows 20 levels in black, as on screens whose black glowed; on today's, a dark sky shows patches of that.
# With 7, on 100 photographs: R@1 0.836 at 39.25 dB, 0.842 at 38.63 dB without; a night sky 43.0 dB instead of 37.8.
_DARK_MOST: Final = 7.0
# Backgrounds as near to black or white as this stay exactly that: shops and print ask for it, and nothing hides what
# lies on them.
_CLIPPED: Final = 0.01


def jnd_map(pixels: torch.Tensor) -> torch.Tensor:
    """Visibility threshold of each pixel.

    Args:
        pixels: (3, H, W) float32, RGB in [0, 255].

    Returns:
        (1, H, W) float32, ≥ 0, in units of the full range: a threshold of ten grey levels is 10/255.
    """
    red, green, blue = pixels
    luminance = (_LUMINANCE[0] * red).add_(green, alpha=_LUMINANCE[1]).add_(blue, alpha=_LUMINANCE[2])
    adaptation = _luminance_adaptation(luminance)
    masking = _contrast_masking(luminance)
    both = adaptation + masking - _OVERLAP * torch.minimum(adaptation, masking)
    return both[None].div_(255.0)


def _luminance_adaptation(luminance: torch.Tensor) -> torch.Tensor:
    """Differences show least in the dark and in the bright; `luminance` is (H, W) in [0, 255].

    The background is a weighted mean of the 5 x 5 pixels around: 2 for the eight nearest, 1 for the others, 0 for the
    pixel itself. That is the sum of 5 x 5, and of 3 x 3, less the pixel twice.
    """
    around = _padded(luminance, 2)
    background = (_box(around, 5) + _box(around[1:-1, 1:-1], 3)).sub_(luminance, alpha=2).mul_(1 / 32)
    dark = background.clamp(min=0).mul_(1 / 127).sqrt_().mul_(-17).add_(20)
    bright = background.sub(127).mul_(3 / 128).add_(3)
    threshold = torch.where(background < 127, dark.clamp_(max=_DARK_MOST), bright)
    return threshold.mul_((background > _CLIPPED) & (background < 255 - _CLIPPED))


def _contrast_masking(luminance: torch.Tensor) -> torch.Tensor:
    """Differences hide beside strong edges: a function of the squared length of Sobel's gradient."""
    around = _padded(luminance, 1)
    down = around[:-2] + around[2:] + 2 * around[1:-1]
    across = around[:, :-2] + around[:, 2:] + 2 * around[:, 1:-1]
    contrast2 = (down[:, 2:] - down[:, :-2]).square_().add_((across[2:] - across[:-2]).square_())
    return contrast2.pow(1.2).mul_(16 * _CONTRAST_GAIN).div_(contrast2.add_(26**2))


def _padded(image: torch.Tensor, margin: int) -> torch.Tensor:
    return F.pad(image[None, None], (margin,) * 4, mode="replicate")[0, 0]


def _box(image: torch.Tensor, side: int) -> torch.Tensor:
    """Sums over side x side windows; sums of slices, since a convolution of one channel is slow."""
    height, width = (extent - side + 1 for extent in image.shape)
    rows = image[:height].clone()
    for i in range(1, side):
        rows += image[i : i + height]
    total = rows[:, :width].clone()
    for i in range(1, side):
        total += rows[:, i : i + width]
    return total
