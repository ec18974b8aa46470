"""From an image's pixels to what the optimiser needs, and from the change it found back to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch

from workers.activation.jnd import CHANNEL_WEIGHTS, jnd_map
from workers.activation.quality import Pixels
from workers.activation.scale import resize, there_and_back
from workers.extractors.inputs import to_input

__all__ = ["Attenuation", "Prepared", "compose", "prepare"]

Attenuation = Literal["jnd", "linf"]
_SAME_FOR_ALL: Final = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Prepared:
    """One image ready for the optimiser: see :class:`workers.activation.optimiser.Batch` for the shapes, without B.

    Attributes:
        visibility: (1, H, W) float32 at the image's own size, or (1, 1, 1): by how much a value may change, in parts of
            the full range, before `weights`.
        weights: of the three channels, alpha included.
    """

    image: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    aspect: float
    visibility: torch.Tensor
    weights: tuple[float, float, float]


def prepare(pixels: Pixels, input_size: int, alpha: float, attenuation: Attenuation = "jnd") -> Prepared:
    """Shrink an image (H, W, 3) uint8, and how far it may change, to the extractor's size.

    Under ``jnd``, alpha scales the just-noticeable difference of each pixel; under ``linf``, every value of every pixel
    may change by alpha grey levels.
    """
    height, width = pixels.shape[:2]
    if attenuation == "jnd":
        visibility, relative = jnd_map(_planes(pixels)), CHANNEL_WEIGHTS
        small = resize(visibility, input_size, input_size)
    else:
        visibility, relative = torch.full((1, 1, 1), 1 / 255), _SAME_FOR_ALL
        small = visibility.expand(1, input_size, input_size)
    weights = (alpha * relative[0], alpha * relative[1], alpha * relative[2])
    return Prepared(
        image=to_input(pixels, input_size),
        mask=torch.tensor(weights)[:, None, None] * small,
        rows=there_and_back(input_size, height),
        columns=there_and_back(input_size, width),
        aspect=width / height,
        visibility=visibility,
        weights=weights,
    )


def compose(pixels: Pixels, prepared: Prepared, change: torch.Tensor, strength: float = 1.0) -> Pixels:
    """Apply a change (3, S, S) in [-1, 1], times `strength`, to an image (H, W, 3) uint8 at its own size."""
    height, width = pixels.shape[:2]
    image = _planes(pixels)
    # One channel at a time: at twelve megapixels a float image is 144 MB.
    for channel, weight in enumerate(prepared.weights):
        enlarged = resize(change[channel : channel + 1], height, width)
        image[channel].addcmul_(enlarged[0], prepared.visibility[0], value=255.0 * strength * weight)
    result: Pixels = image.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return result


def _planes(pixels: Pixels) -> torch.Tensor:
    """(H, W, 3) uint8 → (3, H, W) float32 in [0, 255], a copy."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
