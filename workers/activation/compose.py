"""From an image's pixels to what the optimiser needs, and from the change it found back to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workers.activation.jnd import CHANNEL_WEIGHTS, jnd_map
from workers.activation.quality import Pixels
from workers.activation.scale import resize, there_and_back
from workers.extractors.inputs import to_input


@dataclass(frozen=True)
class Prepared:
    """One image ready for the optimiser: see :class:`workers.activation.optimiser.Batch` for the shapes, without B.

    `visibility` is the JND map (1, H, W) at the image's own size, kept for the composition.
    """

    image: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    visibility: torch.Tensor


def prepare(pixels: Pixels, input_size: int, alpha: float) -> Prepared:
    """Shrink an image (H, W, 3) uint8 and its JND map to the extractor's size."""
    height, width = pixels.shape[:2]
    visibility = jnd_map(_planes(pixels))
    weights = alpha * torch.tensor(CHANNEL_WEIGHTS)[:, None, None]
    return Prepared(
        image=to_input(pixels, input_size),
        mask=weights * resize(visibility, input_size, input_size),
        rows=there_and_back(input_size, height),
        columns=there_and_back(input_size, width),
        visibility=visibility,
    )


def compose(pixels: Pixels, prepared: Prepared, change: torch.Tensor, alpha: float) -> Pixels:
    """Apply a change (3, S, S) in [-1, 1] to an image (H, W, 3) uint8 at its own size."""
    height, width = pixels.shape[:2]
    image = _planes(pixels)
    # One channel at a time: at twelve megapixels a float image is 144 MB.
    for channel, weight in enumerate(CHANNEL_WEIGHTS):
        enlarged = resize(change[channel : channel + 1], height, width)
        image[channel].addcmul_(enlarged[0], prepared.visibility[0], value=255.0 * alpha * weight)
    result: Pixels = image.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return result


def _planes(pixels: Pixels) -> torch.Tensor:
    """(H, W, 3) uint8 → (3, H, W) float32 in [0, 255], a copy."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
