"""Two masks compared: their R@1 where they are equally visible, and how visible they are at equal R@1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from workers.evaluation.findings import VariantRow

__all__ = ["BOUND", "MASK", "MEASURES", "Comparison", "Measure", "compare"]

MASK, BOUND = _ATTENUATIONS = ("jnd", "linf")
_FEWEST_POINTS: Final = 2


class Measure(NamedTuple):
    """How visible a change is: a field of VariantRow, and how it is written for people."""

    field: str
    name: str
    unit: str
    digits: int


MEASURES: Final = (
    Measure("psnr_db", "PSNR", " dB", 1),
    Measure("psnr_y_db", "PSNR of luminance", " dB", 1),
    Measure("ssim", "SSIM", "", 3),
)


@dataclass(frozen=True)
class Comparison:
    """The perceptual mask (`jnd`) and the same bound for all pixels (`linf`), interpolated between the strengths that
    were measured, in the middle of the range that both curves cover.

    Attributes:
        at: the value of the measure at which `recall` gives the R@1 of each.
        at_recall: the R@1 at which `figure` gives the value of the measure for each.
    """

    at: float
    recall: dict[str, float]
    at_recall: float
    figure: dict[str, float]


def compare(strengths: Sequence[VariantRow], measure: Measure) -> Comparison | None:
    """The comparison by one measure of visibility; None where the two curves do not overlap."""
    curves = {
        attenuation: _pareto(
            [
                (getattr(r, measure.field), r.recall_at_1)
                for r in strengths
                if r.variant == attenuation and np.isfinite(r.psnr_db)
            ]
        )
        for attenuation in _ATTENUATIONS
    }
    if min(map(len, curves.values())) < _FEWEST_POINTS:
        return None
    at, at_recall = (_middle([[point[i] for point in curve] for curve in curves.values()]) for i in (0, 1))
    if at is None or at_recall is None:
        return None
    recall = {attenuation: _between(curve, at) for attenuation, curve in curves.items()}
    turned = {attenuation: [(y, x) for x, y in curve] for attenuation, curve in curves.items()}
    return Comparison(
        at, recall, at_recall, {attenuation: _between(curve, at_recall) for attenuation, curve in turned.items()}
    )


def _pareto(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without strengths that a less visible one equals in R@1: beyond some strength, R@1 falls again."""
    kept: list[tuple[float, float]] = []
    for figure, recall in sorted(curve, reverse=True):  # the least visible first
        if not kept or recall > kept[-1][1]:
            kept.append((figure, recall))
    return kept


def _middle(ranges: Sequence[Sequence[float]]) -> float | None:
    """Of what all ranges have in common."""
    low, high = max(map(min, ranges)), min(map(max, ranges))
    return (low + high) / 2 if low <= high else None


def _between(curve: Sequence[tuple[float, float]], x: float) -> float:
    points = sorted(curve)
    return float(np.interp(x, [p[0] for p in points], [p[1] for p in points]))
