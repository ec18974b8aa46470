"""From an image's pixels to what the optimiser needs, and from the change it found back to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from workers.activation.jnd import CHANNEL_WEIGHTS, REACH, jnd_map
from workers.activation.quality import Pixels
from workers.activation.scale import enlarging_matrix, round_trip_matrix
from workers.images.model import Samples
from workers.images.tensors import planes, resize, strips, to_input

__all__ = ["Attenuation", "PreparedImage", "compose", "prepare"]

Attenuation = Literal["jnd", "linf"]
_SAME_FOR_ALL: Final = (1.0, 1.0, 1.0)
_ONE_LEVEL: Final = torch.full((1, 1, 1), 1 / 255)
# A change of luminance alone, of the same mean square as one whose channels follow CHANNEL_WEIGHTS.
_LUMINANCE: Final = math.sqrt(sum(weight**2 for weight in CHANNEL_WEIGHTS) / 3)
# Ink that lies on black shows less: its change is enlarged by this much at most.
_MOST_INK: Final = 4.0


@dataclass(frozen=True)
class PreparedImage:
    """One image ready for the optimiser: see :class:`workers.activation.step.Batch` for the shapes, without B.

    Attributes:
        visibility: (1, H, W) float32 at the image's own size, or (1, 1, 1): by how much a value may change, in parts of
            the full range, before `weights`.
        weights: of the three channels, alpha included.
        grey: whether all channels change alike: the picture has no colour, or its file would lose it.
    """

    image: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    aspect: float
    visibility: torch.Tensor
    weights: tuple[float, float, float]
    grey: bool = False


def prepare(
    pixels: Pixels, input_size: int, alpha: float, attenuation: Attenuation = "jnd", *, grey: bool = False
) -> PreparedImage:
    """Shrink an image (H, W, 3) uint8, and how far it may change, to the extractor's size.

    Under ``jnd``, alpha scales the just-noticeable difference of each pixel; under ``linf``, every value of every pixel
    may change by alpha grey levels. With ``grey``, all channels of a pixel change alike.
    """
    height, width = pixels.shape[:2]
    visibility, narrow = _visibility(pixels, input_size) if attenuation == "jnd" else (_ONE_LEVEL, _ONE_LEVEL)
    relative: tuple[float, ...] = _SAME_FOR_ALL
    if attenuation == "jnd":
        relative = (_LUMINANCE,) * 3 if grey else CHANNEL_WEIGHTS
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
        grey=grey,
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


def compose(
    samples: Samples,
    prepared: PreparedImage,
    change: torch.Tensor,
    strength: float = 1.0,
    tone: npt.NDArray[np.float32] | None = None,
) -> Samples:
    """Apply a change (3, S, S) in [-1, 1], times `strength`, to an image at its own size.

    Args:
        samples: grey (H, W), RGB (H, W, 3) or CMYK (H, W, 4), of 8 or 16 bits.
        tone: for samples that are not in sRGB, by how much one of each level changes for one level of sRGB; see
            :class:`workers.images.model.DecodedImage`. Other primaries than sRGB's are taken for them.
    """
    height, width = samples.shape[:2]
    most = int(np.iinfo(samples.dtype).max)
    weights = torch.tensor(prepared.weights)[:, None, None] * (most * strength)
    wide = resize((change * weights)[: 1 if samples.ndim == 2 else 3], change.shape[1], width)
    result = np.empty_like(samples)
    for rows in strips(height, width):
        enlarged = _rows_enlarged(wide, rows, height)
        visibility = prepared.visibility if prepared.visibility.shape[1] == 1 else prepared.visibility[:, rows]
        image = planes(samples[rows] if samples.ndim == 3 else samples[rows, :, np.newaxis])
        if len(image) == 4:
            _add_to_inks(image, enlarged, visibility, most)
        elif tone is None:
            image.addcmul_(enlarged, visibility)
        else:
            image.addcmul_(enlarged * torch.from_numpy(tone)[(image * (255 / most)).long()], visibility)
        changed = image.round_().clamp_(0, most).permute(1, 2, 0).numpy()
        result[rows] = changed.reshape(result[rows].shape).astype(samples.dtype)
    return result


def _add_to_inks(inks: torch.Tensor, change: torch.Tensor, visibility: torch.Tensor, most: int) -> None:
    """Change cyan, magenta and yellow (of (4, H, W) in place) so that red, green and blue change, by the plain formula:
    each is the white that its ink and black leave."""
    left = (most - inks[3:]).clamp_(min=most / _MOST_INK)
    inks[:3].addcmul_(change, visibility * (most / left), value=-1)


def _rows_enlarged(image: torch.Tensor, rows: slice, height: int) -> torch.Tensor:
    """Some rows of an image (C, S, W) after it is scaled to (C, height, W); see :func:`resize`."""
    weights = enlarging_matrix(image.shape[1], height)[rows]
    used = weights.any(dim=0).nonzero()
    first, last = int(used[0]), int(used[-1]) + 1
    return torch.matmul(weights[:, first:last], image[:, first:last])
