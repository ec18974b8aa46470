"""The just-noticeable-difference map: by how much each pixel may change before a person sees it.

Luminance adaptation and contrast masking after Wu et al., "Enhanced just noticeable difference model for images with
pattern complexity", IEEE TIP 2017, as used in the paper (section 3.3); channel weights as in the paper's appendix.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from workers.extractors.network import IMAGENET_STD
from workers.images.tensors import Floats

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
_DARK_LEVEL: Final = 127 * ((20 - _DARK_MOST) / 17) ** 2  # of the background where the model allows just that
# Backgrounds as near to black or white as this stay exactly that: shops and print ask for it, and nothing hides what
# lies on them.
_CLIPPED: Final = 0.01


def jnd_map(luminance: Floats) -> Floats:
    """Visibility threshold of each pixel.

    Args:
        luminance: (H, W) float32 in [0, 255].

    Returns:
        (H, W) float32, ≥ 0, in units of the full range: a threshold of ten grey levels is 10/255.
    """
    # In numpy, and into the same memory again and again: here it takes two thirds of torch's time, and lets other
    # threads run.
    around = np.pad(luminance, REACH, mode="edge")
    height = len(luminance)
    three = around[1 : height + 1] + around[2 : height + 2]  # sums of so many rows
    three += around[3 : height + 3]
    adaptation = _luminance_adaptation(luminance, around, three)
    masking = _contrast_masking(around, three)
    overlap = np.minimum(adaptation, masking)
    overlap *= np.float32(_OVERLAP)
    adaptation += masking
    adaptation -= overlap
    adaptation *= np.float32(1 / 255)
    return adaptation


def _luminance_adaptation(luminance: Floats, around: Floats, three: Floats) -> Floats:
    """Differences show least in the dark and in the bright: `luminance` is (H, W), with REACH more `around`.

    The background is a weighted mean of the 5 x 5 pixels around: 2 for the eight nearest, 1 for the others, 0 for the
    pixel itself. That is the sum of 5 x 5, and of 3 x 3, less the pixel twice.
    """
    five = around[:-4] + around[4:]
    five += three
    both = five + three
    background = both[:, 1:-3] + both[:, 2:-2]
    for part in (both[:, 3:-1], five[:, :-4], five[:, 4:]):
        background += part
    background *= np.float32(1 / 2)
    background -= luminance
    background *= np.float32(1 / 16)
    # 20 - 17 √(background / 127), and _DARK_MOST at most; from 127 on, where the other is more, 3 at most.
    dark = np.maximum(background, np.float32(_DARK_LEVEL))
    dark *= np.float32(17**2 / 127)
    np.sqrt(dark, out=dark)
    np.subtract(np.float32(20), dark, out=dark)
    bright = background * np.float32(3 / 128)
    bright += np.float32(3 - 127 * 3 / 128)
    threshold = np.maximum(bright, dark, out=bright)
    inside = (background > np.float32(_CLIPPED)) & (background < np.float32(255 - _CLIPPED))
    return threshold if inside.all() else threshold * inside


def _contrast_masking(around: Floats, three: Floats) -> Floats:
    """Differences hide beside strong edges: a function of the squared length of Sobel's gradient."""
    height = len(three)
    smooth = three + around[2 : height + 2]
    contrast2 = smooth[:, 3:-1] - smooth[:, 1:-3]
    contrast2 *= contrast2
    across = around[3 : height + 3] - around[1 : height + 1]
    down = across[:, 1:-3] + across[:, 3:-1]
    for _ in range(2):
        down += across[:, 2:-2]
    down *= down
    contrast2 += down
    with np.errstate(divide="ignore"):  # 0 to the power of 1.2 is 0
        masking = np.log2(contrast2, out=down)
    masking *= np.float32(1.2)
    np.exp2(masking, out=masking)
    masking *= np.float32(16 * _CONTRAST_GAIN)
    contrast2 += np.float32(26**2)
    masking /= contrast2
    return masking
