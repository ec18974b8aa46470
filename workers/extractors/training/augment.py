"""The two views of an image that the training pulls together: nearly the original, and heavily edited.

The edits are those a copy meets in the wild (Douze et al., "The 2021 Image Similarity Dataset and Challenge"); none is
taken from the evaluation: strengths are drawn from ranges, and captions, borders and overlays are drawn afresh.
"""

import random
from dataclasses import dataclass

import torch

from workers.extractors.geometry import Chain, chance, uniform
from workers.extractors.training import backdrops
from workers.extractors.training.photometric import colour, degrade

__all__ = ["Strength", "lightly", "recut", "strongly"]


@dataclass(frozen=True)
class Strength:
    """How often (probabilities) the strong view meets each family of edits."""

    crop: float = 0.6
    rotate: float = 0.45
    place: float = 0.35
    cover: float = 0.12
    colour: float = 0.28
    degrade: float = 0.15
    mirror: float = 0.1

    def scaled(self, factor: float) -> "Strength":
        """Every probability times ``factor``: gentler edits for the first minutes."""
        return Strength(**{name: value * factor for name, value in vars(self).items()})


def recut(images: torch.Tensor, aspects: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """New originals (B, 3, side, side) and aspects: half of them are a crop of what was given.

    A few hundred photographs would be learned by heart; their crops count as photographs of their own.
    """
    count, device = len(images), images.device
    chain = Chain(aspects)
    _crop(chain, chance(count, 0.5, device), least_area=0.25, stretch=0.2)
    chain.mirror(chance(count, 0.5, device))
    return chain.render(images, side), chain.aspects


def lightly(images: torch.Tensor) -> torch.Tensor:
    """What an index holds: the original, or a barely changed one. (B, 3, h, h) to the same."""
    count, device = len(images), images.device
    chain = Chain(torch.ones(count, device=device))
    _crop(chain, chance(count, 0.25, device), least_area=0.85, stretch=0.05)
    return degrade(colour(chain.render(images, images.shape[-1]), 0.15, 1.15, 0.0), 0.03)


def strongly(images: torch.Tensor, aspects: torch.Tensor, strength: Strength) -> torch.Tensor:
    """Edited copies (B, 3, h, h) of squares (B, 3, h, h) that had ``aspects`` (B,) before they were squashed."""
    count, side, device = len(images), images.shape[-1], images.device
    # Colours change before the borders come as often as after: a meme's band stays white in the first case only.
    edited = colour(images.clone(), strength.colour / 2, 2.4, 0.25)
    chain = Chain(aspects)
    _crop(chain, chance(count, strength.crop, device), least_area=0.3, stretch=0.25)
    chain.mirror(chance(count, strength.mirror, device))
    chain.rotate(_angles(count, strength.rotate, device), chance(count, 0.75, device), backdrops.plain(count, device))
    _place(chain, chance(count, strength.place, device), images)
    _crop(chain, chance(count, strength.crop / 4, device), least_area=0.6, stretch=0.2)
    chain.rotate(
        _angles(count, strength.rotate / 6, device), chance(count, 0.75, device), backdrops.plain(count, device)
    )
    edited = chain.render(edited, side)
    for i in chance(count, strength.cover, device).nonzero().flatten().tolist():
        backdrops.stickers(edited[i], images[i - 1])
    return degrade(colour(edited, strength.colour / 2, 2.4, 0.25), strength.degrade)


def _crop(chain: Chain, where: torch.Tensor, least_area: float, stretch: float) -> None:
    """Where told, keep a window of at least ``least_area`` of the canvas, its aspect changed by e^±``stretch``."""
    count, device = len(where), where.device
    size = uniform(count, least_area, 1.0, device).sqrt()
    lean = uniform(count, -stretch, stretch, device).mul(0.5).exp()
    half = torch.stack([size * lean, size / lean], dim=1).clamp(max=1.0)
    centred = chance(count, 0.3, device)[:, None]
    centre = torch.where(centred, 0.0, torch.rand(count, 2, device=device) * 2 - 1) * (1 - half)
    where = where[:, None]
    chain.crop(torch.where(where, half, torch.ones_like(half)), torch.where(where, centre, torch.zeros_like(centre)))


def _angles(count: int, probability: float, device: torch.device) -> torch.Tensor:
    """Degrees (B,): none, a right angle, or any angle with the smaller ones more often."""
    right = torch.randint(1, 4, (count,), device=device) * 90.0
    any_angle = torch.where(chance(count, 0.65, device), 45.0, 180.0) * uniform(count, -1.0, 1.0, device)
    angle = torch.where(chance(count, 0.35, device), right, any_angle)
    return torch.where(chance(count, probability, device), angle, 0.0)


def _place(chain: Chain, where: torch.Tensor, others: torch.Tensor) -> None:
    """Where told, put the picture under or over a caption band, inside a border, or onto another picture."""
    count, device = len(where), where.device
    half, centre = torch.ones(count, 2), torch.zeros(count, 2)
    backdrop = backdrops.plain(count, device).repeat(1, 1, others.shape[-2], others.shape[-1])
    for i in where.nonzero().flatten().tolist():
        kind = random.random()
        if kind < 0.55:
            top, bottom = _bands(backdrop[i])
            half[i, 1], centre[i, 1] = 1 - top - bottom, top - bottom
        else:
            if kind < 0.85:
                backdrop[i] = others[i - 1]
            size = random.uniform(0.5, 0.98)
            half[i] = torch.tensor([size, min(1.0, size * random.uniform(0.8, 1.25))])
            centre[i] = (torch.rand(2) * 2 - 1) * (1 - half[i])
    chain.place(half.to(device), centre.to(device), backdrop)


def _bands(backdrop: torch.Tensor) -> tuple[float, float]:
    """Paint a white or black canvas with a caption above, below or both; the heights of the bands, in parts of it."""
    backdrop.fill_(float(random.random() < 0.65))
    place = random.random()
    top = random.uniform(0.08, 0.38) if place < 0.75 else 0.0
    bottom = random.uniform(0.08, 0.38) if place > 0.55 else 0.0
    if top:
        _caption_between(backdrop, 0.0, top)
    if bottom:
        _caption_between(backdrop, 1.0 - bottom, 1.0)
    return top, bottom


def _caption_between(backdrop: torch.Tensor, top: float, bottom: float) -> None:
    """Write a caption across most of the band between two heights, in parts of the canvas."""
    margin = 0.1 * (bottom - top)
    backdrops.captioned(backdrop, random.uniform(0.02, 0.2), top + margin, random.uniform(0.8, 0.98), bottom - margin)
