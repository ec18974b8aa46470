"""From an image's pixels to what the optimiser needs, and from the change it found back to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from workers.activation.jnd import CHANNEL_WEIGHTS, REACH, jnd_map
from workers.activation.quality import Pixels
from workers.activation.scale import round_trip_matrix
from workers.images.model import Samples
from workers.images.tensors import Floats, Shrinking, as_input, floats, luminance, resize, row_weights, strips

__all__ = ["Attenuation", "PreparedImage", "compose", "prepare"]

Attenuation = Literal["jnd", "linf"]
_SAME_FOR_ALL: Final = (1.0, 1.0, 1.0)
_ONE_LEVEL: Final = np.full((1, 1), 1 / 255, np.float32)
# A change of luminance alone, of the same mean square as one whose channels follow CHANNEL_WEIGHTS.
_LUMINANCE: Final = math.sqrt(sum(weight**2 for weight in CHANNEL_WEIGHTS) / 3)
# Ink that lies on black shows less: its change is enlarged by this much at most.
_MOST_INK: Final = 4.0


@dataclass(frozen=True)
class PreparedImage:
    """One image ready for the optimiser: see :class:`workers.activation.step.Batch` for the shapes, without B.

    Attributes:
        mask: (1, S, S) float32, how far a value may move, before `weights`.
        visibility: (H, W) float32 at the image's own size, or (1, 1): by how much a value may change, in parts of
            the full range, before `weights`.
        weights: of the three channels, alpha included.
        grey: whether all channels change alike: the picture has no colour, or its file would lose it.
    """

    image: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    aspect: float
    visibility: Floats
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
    image, visibility, small = _shrunk(pixels, input_size, attenuation)
    relative: tuple[float, ...] = _SAME_FOR_ALL
    if attenuation == "jnd":
        relative = (_LUMINANCE,) * 3 if grey else CHANNEL_WEIGHTS
    weights = (alpha * relative[0], alpha * relative[1], alpha * relative[2])
    return PreparedImage(
        image=image,
        mask=small,
        rows=round_trip_matrix(input_size, height),
        columns=round_trip_matrix(input_size, width),
        aspect=width / height,
        visibility=visibility,
        weights=weights,
        grey=grey,
    )


def _shrunk(pixels: Pixels, size: int, attenuation: Attenuation) -> tuple[torch.Tensor, Floats, torch.Tensor]:
    """The extractor's input (3, size, size), the visibility at the image's own size, and the same (1, size, size)."""
    height, width = pixels.shape[:2]
    image, small = Shrinking(pixels.shape, size), Shrinking((height, width, 1), size)
    by_pixel = attenuation == "jnd"
    visibility = np.empty((height, width), np.float32) if by_pixel else _ONE_LEVEL
    for rows in strips(height, width):
        seen = slice(max(0, rows.start - REACH), min(height, rows.stop + REACH))
        values, above = floats(pixels[seen]), rows.start - seen.start
        here = slice(above, above + rows.stop - rows.start)
        image.add(rows, values[here])
        if by_pixel:
            visibility[rows] = jnd_map(luminance(values))[here]
            small.add(rows, visibility[rows])
    one_level = torch.from_numpy(_ONE_LEVEL).expand(1, size, size)
    return as_input(image), visibility, small.square() if by_pixel else one_level


def compose(
    samples: Samples,
    prepared: PreparedImage,
    change: torch.Tensor,
    strength: float = 1.0,
    tone: npt.NDArray[np.float32] | None = None,
    bands: Sequence[slice] | None = None,
) -> Samples:
    """Apply a change (3, S, S) in [-1, 1], times `strength`, to an image at its own size.

    Args:
        samples: grey (H, W), RGB (H, W, 3) or CMYK (H, W, 4), of 8 or 16 bits.
        tone: for samples that are not in sRGB, by how much one of each level changes for one level of sRGB; see
            :class:`workers.images.model.DecodedImage`. Other primaries than sRGB's are taken for them.
        bands: rows of which alone the result consists, one band below the other; all by default.
    """
    height, width = samples.shape[:2]
    most = int(np.iinfo(samples.dtype).max)
    weights = torch.tensor(prepared.weights)[:, None, None] * (most * strength)
    planes = resize((change * weights)[: 1 if samples.ndim == 2 else 3], change.shape[1], width)
    wide = planes.permute(1, 2, 0).contiguous().numpy()
    bands = list(bands or strips(height, width))
    result = np.empty((sum(rows.stop - rows.start for rows in bands), *samples.shape[1:]), samples.dtype)
    weights_of_rows, top = row_weights(len(wide), height), 0
    for rows in bands:
        changed = _rows_enlarged(wide, weights_of_rows[rows])
        visibility = prepared.visibility if prepared.visibility.size == 1 else prepared.visibility[rows]
        changed *= np.repeat(visibility, changed.shape[2], axis=1).reshape(len(visibility), -1, changed.shape[2])
        part = samples[rows].reshape(len(changed), width, -1)
        if part.shape[2] == 4:
            changed = _as_inks(part, changed, most)
        elif tone is not None:
            changed *= tone[(part * (255 / most)).astype(np.int64)]
        changed += part
        np.rint(changed, out=changed)
        np.clip(changed, 0, most, out=changed)
        result[top : top + len(changed)] = changed.reshape(-1, *result.shape[1:])
        top += len(changed)
    return result


def _as_inks(inks: Samples, change: Floats, most: int) -> Floats:
    """How inks (h, W, 4) change so that red, green and blue change by (h, W, 3), by the plain formula: each is the
    white that its ink and black leave."""
    left = np.maximum(most - floats(inks[..., 3:]), most / _MOST_INK)
    return np.dstack([change * (-most / left), np.zeros_like(left)])


def _rows_enlarged(image: Floats, weights: Floats) -> Floats:
    """Some rows (h, W, C) of an image (S, W, C) after it is scaled in height, by their weights (h, S) of
    :func:`row_weights`."""
    used = np.flatnonzero(weights.any(axis=0))
    first, last = used[0], used[-1] + 1
    enlarged: Floats = weights[:, first:last] @ image[first:last].reshape(last - first, -1)
    return enlarged.reshape(len(enlarged), *image.shape[1:])
