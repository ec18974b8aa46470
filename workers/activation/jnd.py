"""The just-noticeable-difference map: by how much each pixel may change before a person sees it.

Luminance adaptation and contrast masking after Wu et al., "Enhanced just noticeable difference model for images with
pattern complexity", IEEE TIP 2017, as used in the paper (section 3.3); channel weights as in the paper's appendix.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import float32, void

from workers.extractors.network import IMAGENET_STD
from workers.images.compiled import Number, array, compiled, part_of_kernel
from workers.images.kernel_parts import LUMINANCE_WEIGHTS, fifth_root
from workers.images.scaling import Floats

# The eye is most sensitive to green: a channel may change in inverse proportion to its weight in luminance. The
# remaining factors put the map, which the paper applies to ImageNet-normalised values, into [0, 1] pixel values.
CHANNEL_WEIGHTS: Final = tuple(0.072 / w * s for w, s in zip(LUMINANCE_WEIGHTS, IMAGENET_STD, strict=True))

REACH: Final = 2  # rows and columns around a pixel that have a say in its threshold
_OVERLAP: Final = np.float32(0.3)  # how much of the weaker effect the stronger one covers
_CONTRAST_GAIN: Final = np.float32(16 * 0.117)
# The model allows 20 levels in black, as on screens whose black glowed; on today's, a dark sky shows patches of that.
# With 7, on 100 photographs: R@1 0.836 at 39.25 dB, 0.842 at 38.63 dB without; a night sky 43.0 dB instead of 37.8.
_DARK_MOST: Final = 7.0
# Of the background where the model allows just that.
_DARK_LEVEL: Final = np.float32(127 * ((20 - _DARK_MOST) / 17) ** 2)
# Backgrounds as near to black or white as this stay exactly that: shops and print ask for it, and nothing hides what
# lies on them.
_BLACK: Final = np.float32(0.01)
_WHITE: Final = np.float32(255 - 0.01)


def jnd_map(luminance: Floats) -> Floats:
    """Visibility threshold of each pixel.

    Args:
        luminance: (H, W) float32 in [0, 255].

    Returns:
        (H, W) float32, ≥ 0, in units of the full range: a threshold of ten grey levels is 10/255.
    """
    thresholds = np.empty_like(luminance)
    _thresholds(luminance, thresholds)
    return thresholds


@compiled(void(array(float32, 2), array(float32, 2, written=True)))
def _thresholds(luminance: Floats, thresholds: Floats) -> None:
    """See :func:`jnd_map`. Sums of columns of pixels are made for a whole row first, then sums of these: beyond its
    edges the image goes on as it is there."""
    height, width = luminance.shape
    sums = np.empty((4, width + 2 * REACH), np.float32)
    three, five, across, smooth = sums[0], sums[1], sums[2], sums[3]
    for y in range(height):
        _add_columns(luminance, y, three, five, across, smooth)
        for x in range(width):
            # A weighted mean of the 5 x 5 pixels around: 2 for the eight nearest, 1 for the others, 0 for the pixel
            # itself. That is the sum of 5 x 5, and of 3 x 3, less the pixel twice.
            inner = (five[x + 1] + three[x + 1]) + (five[x + 2] + three[x + 2]) + (five[x + 3] + three[x + 3])
            around = inner + five[x] + five[x + 4]
            background = (around * np.float32(1 / 2) - luminance[y, x]) * np.float32(1 / 16)
            # Sobel's gradient.
            to_right = smooth[x + 3] - smooth[x + 1]
            to_bottom = across[x + 1] + across[x + 3] + across[x + 2] + across[x + 2]
            adaptation = _luminance_adaptation(background)
            masking = _contrast_masking(to_right * to_right + to_bottom * to_bottom)
            both = adaptation + masking - _OVERLAP * min(adaptation, masking)
            thresholds[y, x] = both * np.float32(1 / 255)


@part_of_kernel
def _add_columns(luminance: Floats, y: int, three: Floats, five: Floats, across: Floats, smooth: Floats) -> None:
    """Of each column around row `y`, and REACH more at both sides: the sum of three pixels and of five, the lower
    neighbour less the upper one, and the sum of three with the middle one twice."""
    last, width = len(luminance) - 1, luminance.shape[1]
    top, above, here = luminance[max(y - 2, 0)], luminance[max(y - 1, 0)], luminance[y]
    below, bottom = luminance[min(y + 1, last)], luminance[min(y + 2, last)]
    for x in range(width):
        near = above[x] + here[x] + below[x]
        three[x + REACH] = near
        five[x + REACH] = top[x] + bottom[x] + near
        across[x + REACH] = below[x] - above[x]
        smooth[x + REACH] = near + here[x]
    for sums in (three, five, across, smooth):
        for x in range(REACH):
            sums[x], sums[width + REACH + x] = sums[REACH], sums[width + REACH - 1]


@part_of_kernel
def _luminance_adaptation(background: Number) -> Number:
    """Differences show least in the dark and in the bright: 20 - 17 √(background / 127), and _DARK_MOST at most; from
    127 on, where the other is more, 3 at most."""
    dark = np.float32(20) - math.sqrt(max(background, _DARK_LEVEL) * np.float32(17**2 / 127))
    bright = background * np.float32(3 / 128) + np.float32(3 - 127 * 3 / 128)
    return max(bright, dark) if _BLACK < background < _WHITE else np.float32(0)


@part_of_kernel
def _contrast_masking(contrast2: Number) -> Number:
    """Differences hide beside strong edges: a function of the squared length of Sobel's gradient."""
    return contrast2 * fifth_root(contrast2) * _CONTRAST_GAIN / (contrast2 + np.float32(26**2))
