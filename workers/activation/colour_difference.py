"""How different two images look: CIEDE2000 (Sharma, Wu, Dalal 2005, "The CIEDE2000 color-difference formula")."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from workers.images.tensors import to_input

__all__ = ["ciede2000", "visible_difference"]

# The side of the images that are compared: a change is found at about this size and smooth on larger images, and the
# eye hardly sees finer differences of colour, which noise is full of.
_SIDE: Final = 96
_PERCENTILE: Final = 99.0
_TO_XYZ: Final = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE: Final = (0.95047, 1.0, 1.08883)


def visible_difference(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    """The 99th percentile of CIEDE2000 of two sRGB images (H, W, 3), each squashed to 96 × 96 pixels. 1 is what an
    eye just notices between two flat patches side by side.

    PSNR and SSIM do not tell a faint, wide patch of colour in a dark sky from noise of the same energy; this does.
    """
    differences = ciede2000(_lab(to_input(first, _SIDE)), _lab(to_input(second, _SIDE)))
    return float(np.percentile(differences.numpy(), _PERCENTILE))


def _lab(image: torch.Tensor) -> torch.Tensor:
    """(3, H, W) sRGB in [0, 1] → CIELAB under D65."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,jhw->ihw", torch.tensor(_TO_XYZ), linear) / torch.tensor(_WHITE)[:, None, None]
    f = torch.where(xyz > 216 / 24389, xyz.clamp(min=1e-9) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    return torch.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Of two images (3, …) in CIELAB, for every pixel; names as in the paper."""
    chroma = (torch.hypot(first[1], first[2]) + torch.hypot(second[1], second[2])) / 2
    g = 1.5 - 0.5 * _saturation(chroma)
    a1, a2 = first[1] * g, second[1] * g
    c1, c2 = torch.hypot(a1, first[2]), torch.hypot(a2, second[2])
    h1, h2 = torch.atan2(first[2], a1), torch.atan2(second[2], a2)
    turn = torch.remainder(h2 - h1 + math.pi, 2 * math.pi) - math.pi
    colourless = c1 * c2 == 0
    turn = torch.where(colourless, 0.0, turn)
    hue = torch.where(colourless, h1 + h2, torch.remainder(h1 + turn / 2, 2 * math.pi))
    lightness, c = (first[0] + second[0]) / 2, (c1 + c2) / 2
    t = 1 - 0.17 * torch.cos(hue - math.radians(30)) + 0.24 * torch.cos(2 * hue)
    t += 0.32 * torch.cos(3 * hue + math.radians(6)) - 0.20 * torch.cos(4 * hue - math.radians(63))
    offset2 = (lightness - 50) ** 2
    dl = (second[0] - first[0]) / (1 + 0.015 * offset2 / torch.sqrt(20 + offset2))
    dc = (c2 - c1) / (1 + 0.045 * c)
    dh = 2 * torch.sqrt(c1 * c2) * torch.sin(turn / 2) / (1 + 0.015 * c * t)
    angle = math.radians(60) * torch.exp(-(((torch.rad2deg(hue) - 275) / 25) ** 2))
    rotation = -2 * _saturation(c) * torch.sin(angle)
    return torch.sqrt((dl**2 + dc**2 + dh**2 + rotation * dc * dh).clamp(min=0))


def _saturation(chroma: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(chroma**7 / (chroma**7 + 25.0**7))
