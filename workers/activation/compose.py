"""From an image's pixels to what the optimiser needs, and from the change it found back to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch

from workers.activation.jnd import CHANNEL_WEIGHTS, REACH, jnd_map
from workers.activation.quality import Pixels
from workers.activation.scale import enlarging_matrix, round_trip_matrix
from workers.images.tensors import planes, resize, strips, to_input

__all__ = ["Attenuation", "PreparedImage", "compose", "prepare"]

Attenuation = Literal["jnd", "linf"]
_SAME_FOR_ALL: Final = (1.0, 1.0, 1.0)
_ONE_LEVEL: Final = torch.full((1, 1, 1), 1 / 255)


@dataclass(frozen=True)
class PreparedImage:
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


def prepare(pixels: Pixels, input_size: int, alpha: float, attenuation: Attenuation = "jnd") -> PreparedImage:
    """Shrink an image (H, W, 3) uint8, and how far it may change, to the extractor's size.

    Under ``jnd``, alpha scales the just-noticeable difference of each pixel; under ``linf``, every value of every pixel
    may change by alpha grey levels.
    """
    height, width = pixels.shape[:2]
    visibility, narrow = _visibility(pixels, input_size) if attenuation == "jnd" else (_ONE_LEVEL, _ONE_LEVEL)
    relative = CHANNEL_WEIGHTS if attenuation == "jnd" else _SAME_FOR_ALL
    weights = (alpha * relative[0], alpha * relative[1], alpha * relative[2])
    small = resize(narrow, input_size, input_size)
    return PreparedImage(
        image=to_input(pixels, input_size),
        mask=torch.tensor(weights)[:, None, None] * small,
        rows=round_trip_matrix(input_size, height),
        columns=round_trip_matrix(input_size, width),
        aspect=width / height,
        visibility=visibility,
        weights=weights,
    )


def _visibility(pixels: Pixels, input_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The JND map (1, H, W), and the same (1, H, input_size) shrunk in width only."""
    height, width = pixels.shape[:2]
    visibility, narrow = torch.empty(1, height, width), torch.empty(1, height, input_size)
    for rows in strips(height, width):
        seen = slice(max(0, rows.start - REACH), min(height, rows.stop + REACH))
        above = rows.start - seen.start
        count = rows.stop - rows.start
        visibility[:, rows] = jnd_map(planes(pixels[seen]))[:, above : above + count]
        narrow[:, rows] = resize(visibility[:, rows], count, input_size)
    return visibility, narrow


def compose(pixels: Pixels, prepared: PreparedImage, change: torch.Tensor, strength: float = 1.0) -> Pixels:
    """Apply a change (3, S, S) in [-1, 1], times `strength`, to an image (H, W, 3) uint8 at its own size."""
    height, width = pixels.shape[:2]
    weights = torch.tensor(prepared.weights)[:, None, None] * (255.0 * strength)
    wide = resize(change * weights, change.shape[1], width)
    result = np.empty_like(pixels)
    for rows in strips(height, width):
        enlarged = _rows_enlarged(wide, rows, height)
        visibility = prepared.visibility if prepared.visibility.shape[1] == 1 else prepared.visibility[:, rows]
        image = planes(pixels[rows]).addcmul_(enlarged, visibility)
        result[rows] = image.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return result


def _rows_enlarged(image: torch.Tensor, rows: slice, height: int) -> torch.Tensor:
    """Some rows of an image (C, S, W) after it is scaled to (C, height, W); see :func:`resize`."""
    weights = enlarging_matrix(image.shape[1], height)[rows]
    used = weights.any(dim=0).nonzero()
    first, last = int(used[0]), int(used[-1]) + 1
    return torch.matmul(weights[:, first:last], image[:, first:last])
