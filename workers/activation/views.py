"""Edited views of images at the extractor's size, for the robust mode: the optimiser sees what a copy may look like.

All are differentiable. They come in an order, and are drawn from a seeded sequence, that are the same for every image,
so that the same image gives the same change, whatever its neighbours in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Final, TypeAlias

import numpy as np
import torch

from workers.extractors.geometry import Chain

__all__ = ["View", "in_turn", "mean_views"]

Images = torch.Tensor
View: TypeAlias = Callable[[Images, torch.Tensor], Images]
_Edit = Callable[[Images, torch.Tensor, np.random.Generator], Images]

# RGB to luminance and two colour axes (NTSC), about whose luminance axis a hue turns.
_YIQ: Final = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def in_turn() -> Iterator[View]:
    """What the steps of robust mode see beside the image itself, one edit after the other and without end.

    A view takes images (B, 3, S, S) and aspects (B,), width over height before squashing.
    """
    random = np.random.default_rng(0)
    return (_drawn(edit, random) for edit in cycle(_IN_TURN))


def mean_views(images: Images, aspects: torch.Tensor) -> list[Images]:
    """The views whose mean feature is registered in robust mode: the image itself, and five edits of it."""
    random = np.random.default_rng(1)
    return [images, *(edit(images, aspects, random) for edit in _IN_MEAN)]


def _drawn(edit: _Edit, random: np.random.Generator) -> View:
    return lambda images, aspects: edit(images, aspects, random)


def _rotate(images: Images, aspects: torch.Tensor, random: np.random.Generator) -> Images:
    return _turned(images, aspects, float(random.uniform(10, 35) * random.choice([-1, 1])))


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


def _for_all(images: Images, pair: tuple[float, float]) -> torch.Tensor:
    return images.new_tensor(pair).expand(len(images), 2)


# Those under which features move furthest. More of them cost more, and find little more.
_IN_MEAN: Final[tuple[_Edit, ...]] = (_rotate, _crop, _hue, _brightness, _contrast)
_IN_TURN: Final[tuple[_Edit, ...]] = (_rotate, _crop, _hue, _contrast)
