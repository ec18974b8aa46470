"""Background images: unrelated to every asset, so that what they match is a false match.

A collection keeps their features to calibrate by, their codes as distractors, and tells by them which queries lie where
many different images do, so that a code says nothing about which of them it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from tasks.errors import CorruptSegment
from workers.index.codec.codec import Features

__all__ = ["Background", "Surroundings"]

_NEIGHBOURS: Final = 10
# Features that are compared with all of a background in one step: of 64, each took 1.8 times as long as of 256.
_AT_ONCE: Final = 256
# Of photographs, one in a thousand lies in a place as crowded as those that are called uninformative.
_CROWDED_QUANTILE: Final = 0.001
_FEWEST: Final = 1_000
# A match in this share of the distance to what surrounds the query is told from it. Measured with `compact` and PQ8x8:
# textures and their own codes 0.46 to 0.56, pages of text and the nearest code of another page 0.7 and more (97.5 %).
# At 0.6, 99.5 % of pages; but half of the copies of textures, which look like pages to it, would be hidden too.
_TOLD_APART: Final = 0.7
# Exact features of unedited textures are at no distance, those of other pages at 0.25 and more (99 %).
_TOLD_APART_EXACT: Final = 0.25
# Where so many of the neighbours are plain images, the query is likely one too: of pages of text 99.7 %, of photographs
# 4 %.
_MOSTLY_PLAIN: Final = 8


@dataclass(frozen=True)
class Surroundings:
    """What lies around a feature.

    Attributes:
        nearness: mean squared distance to the nearest background images.
        crowded: whether that is less than for nearly every photograph.
        plain: whether nearly all of those are plain images.
    """

    nearness: float
    crowded: bool
    plain: bool

    def hide(self, match: float, exact: bool) -> bool:
        """Whether a match at this squared distance, of exact features or quantised ones, is hardly nearer than they
        are: another image of that kind is as near."""
        share = _TOLD_APART_EXACT if exact and self.plain else _TOLD_APART
        return (self.plain or self.crowded) and match > share * self.nearness


@dataclass(frozen=True)
class Background:
    """Features (B, D) float32 of norm 1; the first `photographs` rows are of photographs, the others of plain images:
    pages of text, flat colours, gradients, noise."""

    features: Features
    photographs: int

    @classmethod
    def read(cls, path: Path) -> Background:
        """Raises CorruptSegment for a file that is no background."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                features = archive["features"].astype(np.float32) * np.float32(archive["scale"])
                return cls(features, int(archive["photographs"]))
        except (KeyError, ValueError, OSError) as error:
            raise CorruptSegment(f"{path} holds no background: {error}") from error

    def write(self, path: Path) -> None:
        """As 8-bit integers, which move a squared distance by less than a hundredth."""
        scale = np.float32(np.abs(self.features).max() / 127)
        with path.open("wb") as file:
            np.savez_compressed(
                file, features=np.round(self.features / scale).astype(np.int8), scale=scale,
                photographs=np.int64(self.photographs),
            )  # fmt: skip

    @property
    def plain(self) -> Features:
        """Of the plain images."""
        return self.features[self.photographs :]

    def __len__(self) -> int:
        return len(self.features)

    def around(self, features: Features) -> list[Surroundings]:
        """Of features (N, D)."""
        if self._crowded is None:
            return [Surroundings(np.inf, crowded=False, plain=False)] * len(features)
        parts = (self._around(features[i : i + _AT_ONCE], self._crowded) for i in range(0, len(features), _AT_ONCE))
        return list(chain.from_iterable(parts))

    def _around(self, features: Features, crowded: float) -> Iterator[Surroundings]:
        # Two less than the squared distances: adding it to all of them would take a quarter of the time.
        less = (-2 * features) @ self.features.T
        nearest = np.argpartition(less, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        nearness = (2 + np.take_along_axis(less, nearest, axis=1)).mean(axis=1)
        plain = np.count_nonzero(nearest >= self.photographs, axis=1)
        for near, count in zip(nearness.tolist(), plain.tolist(), strict=True):
            yield Surroundings(near, near < crowded, count >= _MOSTLY_PLAIN)

    def warm(self) -> None:
        """Measure what is crowded, so that the first query does not have to: it takes a while."""
        _ = self._crowded

    def uninformative(self, feature: Features) -> bool:
        """Whether no match of a feature (D,) means anything."""
        return self.around(feature[None])[0].crowded

    @cached_property
    def _crowded(self) -> float | None:
        """The mean squared distance to the nearest neighbours that few photographs are below; None when there are too
        few to tell."""
        if self.photographs < _FEWEST:
            return None
        nearness = [self._nearness(part, own=1) for part in np.array_split(self.features[: self.photographs], 16)]
        return float(np.quantile(np.concatenate(nearness), _CROWDED_QUANTILE))

    def _nearness(self, features: Features, own: int = 0) -> np.ndarray:
        """(Q,) mean squared distance to the nearest neighbours, but for the `own` nearest."""
        distances = 2 - 2 * features @ self.features.T
        nearest = np.partition(distances, own + _NEIGHBOURS, axis=1)[:, : own + _NEIGHBOURS]
        mean: np.ndarray = np.sort(nearest, axis=1)[:, own:].mean(axis=1)
        return mean
