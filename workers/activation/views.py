"""Edited views of images at the extractor's size, for the robust mode: the optimiser sees what a copy may look like.

All are differentiable. They are drawn from a seeded sequence that is the same for every image, so that the same image
gives the same change, whatever its neighbours in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

from workers.extractors.geometry import Chain

__all__ = ["edited", "mean_views"]

Images = torch.Tensor
_Edit = Callable[[Images, torch.Tensor, np.random.Generator], Images]

# RGB to luminance and two colour axes (NTSC), about whose luminance axis a hue turns.
_YIQ: Final = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def edited(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    """One edit, drawn for all images (B, 3, S, S) alike; aspects (B,) are width over height before squashing."""
    edit = _EDITS[random.choice(len(_EDITS), p=_SHARES)]
    return edit(images, aspects, random)


def mean_views(images: Images, aspects: torch.Tensor) -> list[Images]:
    """The views whose mean feature is registered in robust mode: the image itself, and each edit once, crops twice."""
    random = np.random.default_rng(1)
    return [images, *(edit(images, aspects, random) for edit in (*_EDITS, _crop))]


def _rotate(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    return _turned(images, aspects, float(random.uniform(10, 35) * random.choice([-1, 1])))


def _quarter_turn(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    return _turned(images, aspects, float(random.choice([-90, 90])))


def _turned(images: Images, aspects: torch.Tensor, degrees: float) -> Images:
    """On a canvas that grows to hold every corner; the new corners are black."""
    chain, everywhere = Chain(aspects), torch.ones_like(aspects)
    chain.rotate(degrees * everywhere, everywhere > 0, images.new_zeros(len(images), 3, 1, 1))
    return chain.render(images, images.shape[-1])


def _crop(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    """40 to 80 per cent of the area, in the middle or anywhere."""
    half = math.sqrt(random.uniform(0.4, 0.8))
    centre = random.uniform(-1, 1, 2) * (1 - half) * random.choice([0, 1])
    chain = Chain(aspects)
    chain.crop(_for_all(images, (half, half)), _for_all(images, (float(centre[0]), float(centre[1]))))
    return chain.render(images, images.shape[-1])


def _caption(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    """Under a white band, as in a meme."""
    band = random.uniform(0.15, 0.3)
    chain = Chain(aspects)
    white = images.new_ones(len(images), 3, 1, 1)
    chain.place(_for_all(images, (1.0, 1.0 - band)), _for_all(images, (0.0, band)), white)
    return chain.render(images, images.shape[-1])


def _contrast(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * float(random.choice([0.5, 2.0]))).clamp(0, 1)


def _brightness(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    return (images * float(random.choice([0.5, 1.8]))).clamp(0, 1)


def _hue(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    angle = 2 * math.pi * float(random.uniform(-0.2, 0.2))
    turn = torch.tensor([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    matrix = (torch.linalg.inv(_YIQ) @ turn @ _YIQ).to(images.device)
    return torch.einsum("ij,bjhw->bihw", matrix, images).clamp(0, 1)


def _blur(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    side = images.shape[-1]
    small = F.interpolate(images, (side // 2, side // 2), mode="bilinear", antialias=True)
    return F.interpolate(small, (side, side), mode="bilinear")


def _for_all(images: Images, pair: tuple[float, float]) -> torch.Tensor:
    return images.new_tensor(pair).expand(len(images), 2)


# How often each is drawn: those under which features move furthest come most often.
_EDITS: Final[tuple[_Edit, ...]] = (_rotate, _quarter_turn, _crop, _caption, _contrast, _brightness, _hue, _blur)
_SHARES: Final = (0.25, 0.1, 0.25, 0.1, 0.1, 0.1, 0.05, 0.05)
