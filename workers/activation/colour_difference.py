"""How different two images look: CIEDE2000 (Sharma, Wu, Dalal 2005, "The CIEDE2000 color-difference formula")."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import float32, void

from workers.images.compiled import Number, array, compiled, part_of_kernel
from workers.images.kernel_parts import cube_root, fifth_root
from workers.images.scaling import Floats
from workers.images.tensors import to_input

__all__ = ["ciede2000", "visible_difference"]

# The side of the images that are compared: a change is found at about this size and smooth on larger images, and the
# eye hardly sees finer differences of colour, which noise is full of.
_SIDE: Final = 96
_PERCENTILE: Final = 99.0
_TO_XYZ: Final = np.array(
    [
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    ],
    np.float32,
)
_WHITE: Final = np.array([0.95047, 1.0, 1.08883], np.float32)


def visible_difference(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    """The 99th percentile of CIEDE2000 of two sRGB images (H, W, 3), each squashed to 96 × 96 pixels. 1 is what an
    eye just notices between two flat patches side by side.

    PSNR and SSIM do not tell a faint, wide patch of colour in a dark sky from noise of the same energy; this does.
    """
    one, other = (_lab(to_input(pixels, _SIDE).numpy().reshape(3, -1)) for pixels in (first, second))
    return float(np.percentile(ciede2000(one, other), _PERCENTILE))


def ciede2000(first: Floats, second: Floats) -> Floats:
    """Of two images (3, N) float32 in CIELAB: (N,) for every pixel."""
    if first.shape != second.shape or len(first) != 3:
        raise ValueError(f"expected (3, N) of both images, got {first.shape} and {second.shape}")
    differences = np.empty(first.shape[1], np.float32)
    _differences(first, second, differences)
    return differences


def _lab(image: Floats) -> Floats:
    """(3, N) sRGB in [0, 1] → CIELAB under D65."""
    lab = np.empty_like(image)
    _to_lab(image, lab)
    return lab


@compiled(void(array(float32, 2), array(float32, 2, written=True)))
def _to_lab(image: Floats, lab: Floats) -> None:
    for i in range(image.shape[1]):
        red, green, blue = _linear(image[0, i]), _linear(image[1, i]), _linear(image[2, i])
        x, y, z = _f(0, red, green, blue), _f(1, red, green, blue), _f(2, red, green, blue)
        lab[0, i] = np.float32(116) * y - np.float32(16)
        lab[1, i] = np.float32(500) * (x - y)
        lab[2, i] = np.float32(200) * (y - z)


@part_of_kernel
def _linear(value: Number) -> Number:
    """sRGB's transfer function: a power of 2.4 but near black."""
    base = (value + np.float32(0.055)) * np.float32(1 / 1.055)
    root = fifth_root(base)
    power = base * base * root * root
    return power if value > np.float32(0.04045) else value * np.float32(1 / 12.92)


@part_of_kernel
def _f(row: int, red: Number, green: Number, blue: Number) -> Number:
    """CIELAB's function of one of X, Y and Z in parts of white's: a cube root but near black."""
    part = (_TO_XYZ[row, 0] * red + _TO_XYZ[row, 1] * green + _TO_XYZ[row, 2] * blue) / _WHITE[row]
    near_black = (np.float32(24389 / 27) * part + np.float32(16)) * np.float32(1 / 116)
    return cube_root(part) if part > np.float32(216 / 24389) else near_black


@compiled(void(array(float32, 2), array(float32, 2), array(float32, 1, written=True)))
def _differences(first: Floats, second: Floats, differences: Floats) -> None:
    """See :func:`ciede2000`."""
    for i in range(len(differences)):
        differences[i] = _difference(first[0, i], first[1, i], first[2, i], second[0, i], second[1, i], second[2, i])


@part_of_kernel
def _difference(l1: Number, a1: Number, b1: Number, l2: Number, a2: Number, b2: Number) -> Number:
    """Of two colours; names as in the paper, and in double precision, since colours that are compared are near."""
    chroma = (_length(a1, b1) + _length(a2, b2)) / 2
    g = 1.5 - 0.5 * _saturation(chroma)
    c1, c2 = _length(a1 * g, b1), _length(a2 * g, b2)
    h1, h2 = math.atan2(b1, a1 * g), math.atan2(b2, a2 * g)
    turn = _wrapped(h2 - h1) if c1 * c2 else 0.0
    hue = h1 + turn / 2 if c1 * c2 else h1 + h2
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2
    offset2 = (lightness - 50) ** 2
    dl = (l2 - l1) / (1 + 0.015 * offset2 / math.sqrt(20 + offset2))
    dc = (c2 - c1) / (1 + 0.045 * c)
    dh = 2 * math.sqrt(c1 * c2) * math.sin(turn / 2) / (1 + 0.015 * c * _t(hue))
    from_blue = math.degrees(hue if hue >= 0 else hue + 2 * math.pi) - 275
    angle = math.radians(60) * math.exp(-((from_blue / 25) ** 2))
    rotation = -2 * _saturation(c) * math.sin(angle)
    return math.sqrt(max(dl**2 + dc**2 + dh**2 + rotation * dc * dh, 0.0))


@part_of_kernel
def _wrapped(angle: Number) -> Number:
    """An angle within two turns, in [-π, π]; a remainder would take longer than a cosine."""
    if angle > math.pi:
        angle -= 2 * math.pi
    return angle + 2 * math.pi if angle < -math.pi else angle


@part_of_kernel
def _t(hue: Number) -> Number:
    """1 - 0.17 cos(h - 30°) + 0.24 cos 2h + 0.32 cos(3h + 6°) - 0.20 cos(4h - 63°), with two calls of the mathematical
    library instead of four."""
    cos, sin = math.cos(hue), math.sin(hue)
    cos2, sin2 = cos * cos - sin * sin, 2 * sin * cos
    cos3, sin3 = cos2 * cos - sin2 * sin, sin2 * cos + cos2 * sin
    cos4, sin4 = cos2 * cos2 - sin2 * sin2, 2 * sin2 * cos2
    first = -0.17 * (cos * math.cos(math.radians(30)) + sin * math.sin(math.radians(30))) + 0.24 * cos2
    third = 0.32 * (cos3 * math.cos(math.radians(6)) - sin3 * math.sin(math.radians(6)))
    return 1 + first + third - 0.20 * (cos4 * math.cos(math.radians(63)) + sin4 * math.sin(math.radians(63)))


@part_of_kernel
def _length(a: Number, b: Number) -> Number:
    return math.sqrt(a * a + b * b)


@part_of_kernel
def _saturation(chroma: Number) -> Number:
    power = chroma**7
    return math.sqrt(power / (power + 25.0**7))
