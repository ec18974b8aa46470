"""Where one picture lies in another that it is an edited copy of: mirrored, turned by quarters, scaled, shifted.

Found by masked normalised cross-correlation (Padfield, 2012) of small grey pictures, over eight orientations and a
ladder of scales. Other turns and distortions are not looked for, and broad borders hide the fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.images.model import Pixels

__all__ = ["Place", "align", "thumbnail"]

_SIDE: Final = 48  # of the frame
_SMALLEST: Final = 12
_SCALES: Final = tuple(1.12**n for n in range(-9, 4))  # 0.36 to 1.4
_NO_ENERGY: Final = 1e-3  # of a plain surface
_OVERLAP: Final = 0.35  # of the smaller picture, at least
# Measured on photographs: 16 at most for unrelated ones and 21 to 29 for copies turned by 25 degrees, which fit nowhere
# rightly; 36 and more for crops to half the area and for lighter edits.
_LEAST: Final = 30.0

Plane = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Place:
    """A picture in another one's frame, whose width and height are 1 each.

    Attributes:
        mirrored, quarter_turns: what to do with the picture first: mirror it, then turn it counter-clockwise.
        left, top, width, height: of the picture then.
        correlation: of the two where they overlap, at most 1.
    """

    mirrored: bool
    quarter_turns: int
    left: float
    top: float
    width: float
    height: float
    correlation: float


def thumbnail(pixels: Pixels) -> Image.Image:
    """A small grey version of pixels (H, W, 3) that :func:`align` takes."""
    picture = Image.fromarray(pixels).convert("L")
    picture.thumbnail((4 * _SIDE, 4 * _SIDE), Image.Resampling.BOX)
    return picture


def align(picture: Image.Image, frame: Image.Image) -> Place | None:
    """Where a thumbnail lies in another one; None where it fits nowhere well."""
    ratio = _SIDE / max(frame.size)
    small = _resized(frame, ratio)
    correlated = _Correlator(_flattened(small))
    found = (
        correlated.best(oriented, scale * min(small.width / oriented.width, small.height / oriented.height), turn)
        for turn, oriented in _orientations(picture)
        for scale in _SCALES
    )
    certainty, place = max((one for one in found if one), key=lambda one: one[0], default=(0.0, None))
    return place if certainty >= _LEAST else None


def _orientations(picture: Image.Image) -> Iterator[tuple[tuple[bool, int], Image.Image]]:
    for mirrored in (False, True):
        flipped = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture
        yield (mirrored, 0), flipped
        turns = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
        for quarter_turns, turn in enumerate(turns, 1):
            yield (mirrored, quarter_turns), flipped.transpose(turn)


class _Correlator:
    """Correlates pictures with one frame (H, W), whose transforms are made once."""

    def __init__(self, frame: Plane) -> None:
        self._height, self._width = frame.shape
        # A picture of twice the frame's size, and the frame: no shift meets itself.
        self._shape = (3 * self._height, 3 * self._width)
        self._frame, self._square, self._inside = (
            np.fft.rfft2(plane, self._shape) for plane in (frame, frame**2, np.ones_like(frame))
        )

    def best(self, picture: Image.Image, ratio: float, turn: tuple[bool, int]) -> tuple[float, Place] | None:
        """The best shift of a picture at one size, with how certain it is: Fisher's transform of the correlation, in
        standard deviations for so many pixels. None where the picture has too few of them, or far too many."""
        plane = _flattened(_resized(picture, ratio))
        height, width = plane.shape
        if min(height, width) < _SMALLEST or height > 2 * self._height or width > 2 * self._width:
            return None
        score, overlap = self._correlation(plane)
        certainty = np.arctanh(np.clip(score, 0, 0.999)) * np.sqrt(np.maximum(overlap, 0))
        row, column = np.unravel_index(int(certainty.argmax()), score.shape)
        # Shifts up and left are counted from the end.
        top = int(row) - (score.shape[0] if row > self._height else 0)
        left = int(column) - (score.shape[1] if column > self._width else 0)
        place = Place(
            *turn, left / self._width, top / self._height, width / self._width, height / self._height,
            float(score[row, column]),
        )  # fmt: skip
        return float(certainty[row, column]), place

    def _correlation(self, plane: Plane) -> tuple[Plane, Plane]:
        """For each shift, the correlation where both overlap, and how many pixels that are."""
        own, square, inside = (np.conj(np.fft.rfft2(p, self._shape)) for p in (plane, plane**2, np.ones_like(plane)))
        product, frame_energy, own_energy, overlap = (
            np.fft.irfft2(part, self._shape)
            for part in (self._frame * own, self._square * inside, self._inside * square, self._inside * inside)
        )
        enough = overlap > _OVERLAP * min(plane.size, self._height * self._width)
        energy = np.maximum(frame_energy, _NO_ENERGY) * np.maximum(own_energy, _NO_ENERGY)
        return np.where(enough, product / np.sqrt(energy), 0.0), overlap


def _resized(picture: Image.Image, ratio: float) -> Image.Image:
    size = max(1, round(ratio * picture.width)), max(1, round(ratio * picture.height))
    return picture.resize(size, Image.Resampling.BOX if ratio < 1 else Image.Resampling.BILINEAR)


def _flattened(picture: Image.Image) -> Plane:
    """Grey values (H, W) without their slow changes, which correlate in any two photographs."""
    plane = np.asarray(picture, dtype=np.float32) / 255
    rough = picture.resize((max(1, picture.width // 12), max(1, picture.height // 12)), Image.Resampling.BOX)
    smooth = rough.resize(picture.size, Image.Resampling.BICUBIC)
    flattened: Plane = plane - np.asarray(smooth, dtype=np.float32) / 255
    return flattened
