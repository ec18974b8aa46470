"""Two ways of hiding a change, compared where they are equally visible, and where they find equally much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from workers.evaluation.findings import VariantRow

__all__ = ["BOUND", "MASK", "MEASURES", "Measure", "Meeting", "meeting"]

MASK, BOUND = WAYS = ("jnd", "linf")
_SHORT: Final = 2


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
class Meeting:
    """The perceptual mask (`jnd`) and the same bound for all pixels (`linf`), interpolated between the strengths that
    were measured, in the middle of what both of them reach.

    Attributes:
        at: what both are given by the measure; `recall` is the R@1 of each there.
        at_recall: the R@1 that both are given; `figure` is what each is by the measure there.
    """

    at: float
    recall: dict[str, float]
    at_recall: float
    figure: dict[str, float]


def meeting(strengths: Sequence[VariantRow], measure: Measure) -> Meeting | None:
    """Compare by one measure; None where the two curves do not overlap."""
    curves = {
        way: _worth_while(
            [(getattr(r, measure.field), r.recall_at_1) for r in strengths if r.way == way and np.isfinite(r.psnr_db)]
        )
        for way in WAYS
    }
    if min(map(len, curves.values())) < _SHORT:
        return None
    at, at_recall = (_middle([[point[i] for point in curve] for curve in curves.values()]) for i in (0, 1))
    if at is None or at_recall is None:
        return None
    recall = {way: _between(curve, at) for way, curve in curves.items()}
    turned = {way: [(y, x) for x, y in curve] for way, curve in curves.items()}
    return Meeting(at, recall, at_recall, {way: _between(curve, at_recall) for way, curve in turned.items()})


def _worth_while(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without strengths that a less visible one finds as much as: from some strength on, more finds less."""
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
