"""From an image's pixels to what the optimiser needs, and from the change it found back to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from numba import float32, int64, uint8, uint16, void

from workers.activation.jnd import CHANNEL_WEIGHTS, REACH, jnd_map
from workers.activation.quality import Pixels
from workers.activation.scale import round_trip_matrix
from workers.images.compiled import Number, array, compiled, native, part_of_kernel
from workers.images.model import Samples
from workers.images.scaling import Floats, Shrinking, band, columns_scaled
from workers.images.strips import strips
from workers.images.tensors import as_input, check_colours, luminance

__all__ = ["Attenuation", "PreparedImage", "compose", "prepare"]

Attenuation = Literal["jnd", "linf"]
_SAME_FOR_ALL: Final = (1.0, 1.0, 1.0)
_ONE_LEVEL: Final = np.full((1, 1), 1 / 255, np.float32)
# A change of luminance alone, of the same mean square as one whose channels follow CHANNEL_WEIGHTS.
_LUMINANCE: Final = math.sqrt(sum(weight**2 for weight in CHANNEL_WEIGHTS) / 3)
# Ink that lies on black shows less: its change is enlarged by this much at most.
_MOST_INK: Final = 4.0
_NO_TONE: Final = np.empty(0, np.float32)


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
    check_colours(pixels)
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
        above = rows.start - seen.start
        image.add(rows, pixels[rows])
        if by_pixel:
            visibility[rows] = jnd_map(luminance(pixels[seen]))[above : above + rows.stop - rows.start]
            small.add(rows, visibility[rows, :, np.newaxis])
    one_level = torch.from_numpy(_ONE_LEVEL).expand(1, size, size)
    return as_input(image), visibility, torch.from_numpy(small.square())[None, ..., 0] if by_pixel else one_level


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

    Raises:
        ValueError: samples, or tone, are not of the shape that belongs to `prepared`.
    """
    height, width = samples.shape[:2]
    _check(samples, prepared, tone)
    most = int(np.iinfo(samples.dtype).max)
    weights = torch.tensor(prepared.weights)[:, None, None] * (most * strength)
    planes = (change * weights)[: 1 if samples.ndim == 2 else 3]
    wide, down = columns_scaled(planes.permute(1, 2, 0).numpy(), width), band(change.shape[1], height)
    bands = list(bands or [slice(0, height)])
    shape = (sum(rows.stop - rows.start for rows in bands), *samples.shape[1:])
    result = np.empty(shape, samples.dtype.newbyteorder("="))
    top = 0
    for rows in bands:
        part = native(samples[rows])
        visibility = prepared.visibility if prepared.visibility.size == 1 else prepared.visibility[rows]
        changed = result[top : top + len(part)]
        _change(_flat(part), _flat(wide), down.first[rows], down.weights[rows], visibility,
                _NO_TONE if tone is None else tone, _flat(changed))  # fmt: skip
        top += len(part)
    return result


def _check(samples: Samples, prepared: PreparedImage, tone: Floats | None) -> None:
    """A kernel would read beyond what it is given."""
    of_one_size = prepared.visibility.shape in {(1, 1), samples.shape[:2]}
    if not of_one_size or samples.shape[2:] not in {(), (3,), (4,)} or (tone is not None and tone.shape != (256,)):
        raise ValueError(f"expected samples and a tone that fit {prepared.visibility.shape}, got {samples.shape}")


def _flat(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(h, W, C) → (h, W × C)."""
    return rows.reshape(len(rows), -1)


_BY_SAMPLES: Final = tuple(
    void(array(kind, 2), array(float32, 2), array(int64, 1), array(float32, 2), array(float32, 2), array(float32, 1),
         array(kind, 2, written=True))
    for kind in (uint8, uint16)
)  # fmt: skip


@compiled(*_BY_SAMPLES)
def _change(
    samples: Samples, wide: Floats, first: npt.NDArray[np.int64], weights: Floats, visibility: Floats,
    tone: Floats, changed: Samples,
) -> None:  # fmt: skip
    """Write into `changed` what :func:`compose` makes of some rows of samples (h, W × C).

    Args:
        wide: (S, W × C) the change in levels of the samples, enlarged in width; of inks, without black.
        first, weights: the band that enlarges it in height: (h,) and (h, taps).
        visibility: (h, W) or (1, 1).
        tone: (levels,), or of no length.
    """
    most = np.float32(np.iinfo(samples.dtype).max)
    change = np.empty(wide.shape[1], np.float32)
    for y in range(len(samples)):
        _enlarge(wide, first[y], weights[y], change)
        _attenuate(change, visibility[min(y, len(visibility) - 1)])
        if samples.shape[1] != len(change):
            _change_inks(samples[y], change, most, changed[y])
            continue
        if len(tone):
            _to_tone(change, samples[y], tone)
        _add(samples[y], change, most, changed[y])


@part_of_kernel
def _enlarge(rows: Floats, first: int, weights: Floats, into: Floats) -> None:
    """A row (N,) between some of the rows (S, N), from `first` on, by their weights (taps,)."""
    for x in range(len(into)):
        into[x] = rows[first, x] * weights[0]
    for tap in range(1, len(weights)):
        for x in range(len(into)):
            into[x] += rows[first + tap, x] * weights[tap]


@part_of_kernel
def _attenuate(change: Floats, visibility: Floats) -> None:
    """A row (W × C,) by the visibility of its pixels, (W,) or (1,)."""
    if len(visibility) == 1:
        for x in range(len(change)):
            change[x] *= visibility[0]
    elif len(change) == len(visibility):
        for x in range(len(change)):
            change[x] *= visibility[x]
    else:  # three channels; as many as are written out here, so that several pixels are done at a time
        for x in range(len(visibility)):
            change[3 * x] *= visibility[x]
            change[3 * x + 1] *= visibility[x]
            change[3 * x + 2] *= visibility[x]


@part_of_kernel
def _to_tone(change: Floats, samples: Samples, tone: Floats) -> None:
    """A change of levels of sRGB (N,) to one of samples (N,) that are in other tones."""
    levels = 255 / np.iinfo(samples.dtype).max
    for x in range(len(change)):
        change[x] *= tone[int(samples[x] * levels)]


@part_of_kernel
def _add(samples: Samples, change: Floats, most: Number, changed: Samples) -> None:
    """A row of samples (N,) and their change, rounded."""
    for x in range(len(samples)):
        value = np.rint(np.float32(samples[x]) + change[x])
        changed[x] = np.int32(min(max(value, np.float32(0)), most))


@part_of_kernel
def _change_inks(inks: Samples, change: Floats, most: Number, changed: Samples) -> None:
    """Inks (W × 4,) such that red, green and blue change by (W × 3,), by the plain formula: each is the white that its
    ink and black leave."""
    for x in range(len(inks) // 4):
        black = inks[4 * x + 3]
        left = max(most - np.float32(black), most / np.float32(_MOST_INK))
        for ink in range(3):
            value = np.rint(np.float32(inks[4 * x + ink]) - change[3 * x + ink] * (most / left))
            changed[4 * x + ink] = np.int32(min(max(value, np.float32(0)), most))
        changed[4 * x + 3] = black
