"""What a user gets: copies that are found *and* called a match, and unrelated images that are called one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Codes, Features, Positions
from workers.index.verdicts.calibration import Calibration, wilson
from workers.index.verdicts.duplicates import near_distance
from workers.index.verdicts.measure import Contents, calibrate, entries_as_queries, first_assets

__all__ = ["FPRS", "VerdictRow", "calibrated_on", "verdict_rows"]

FPRS: Final = (0.01, 0.001)
_NPROBES: Final = (1, 16)
_QUERIES: Final = 3_072


@dataclass(frozen=True)
class VerdictRow:
    """Verdicts of one index at one false-match rate; shares have Wilson's 95 % intervals.

    Attributes:
        recall_at_1: share of the copies whose asset is the first match, and nearer than every reference.
        first: the same among assets only, which is what an answer shows.
        matched: share of the copies whose asset is the first match with the verdict `match`.
        originals: the same of unedited images.
        false_matches: share of unrelated images with the verdict `match`.
    """

    index: str
    nprobe: int
    activated: bool
    fpr: float
    threshold: float | None
    copies: int
    recall_at_1: float
    first: float
    matched: float
    matched_low: float
    matched_high: float
    originals: float
    unrelated: int
    false_matches: float
    false_matches_low: float
    false_matches_high: float


def calibrated_on(
    codec: Codec, references: Features, codes: Codes, stored: Callable[[Positions], Features] | None = None
) -> Calibration:
    """A calibration by references (N, D) and their codes: of some, as queries, among all others.

    Args:
        stored: the features as a collection stores them, by position, to compare by these.
    """
    some = np.sort(np.random.default_rng(0).permutation(len(references))[:_QUERIES])
    queries = entries_as_queries(np.asarray(references), some, near_distance(references))
    return calibrate(Contents(codec, codes, 0, stored), [queries], FPRS[0], "references")


def verdict_rows(
    index: str, calibration: Calibration, contents: Contents, copies: Features, unrelated: Features, *, activated: bool
) -> Iterator[VerdictRow]:
    """Ask for copies (E·N, D), the N unedited ones first, and for unrelated images (M, D) that took no part in the
    calibration."""
    right = np.tile(np.arange(contents.assets), len(copies) // contents.assets)
    for nprobe in _NPROBES if contents.codec.has_cells else (1,):
        curve = calibration.curve(nprobe)
        positions, scores, nearest = first_assets(contents, curve, copies)
        _, others, _ = first_assets(contents, curve, unrelated)
        found = positions == right
        for fpr in FPRS:
            threshold = calibration.threshold(fpr, nprobe, contents.assets)
            limit = -np.inf if threshold is None else threshold
            matched, false = found & (scores <= limit), others <= limit
            yield VerdictRow(
                index, nprobe, activated, fpr, threshold, len(copies), _share(found & nearest), _share(found),
                _share(matched), *_interval(matched), _share(matched[: contents.assets]), len(unrelated),
                _share(false), *_interval(false),
            )  # fmt: skip


def _share(chosen: npt.NDArray[np.bool_]) -> float:
    return float(chosen.mean()) if len(chosen) else 0.0


def _interval(chosen: npt.NDArray[np.bool_]) -> tuple[float, float]:
    return wilson(int(chosen.sum()), len(chosen))
