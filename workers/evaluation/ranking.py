"""Beyond the first match: R@10 and R@100, and the detection protocol of the paper, all queries and candidates at once.

Protocol: Fernandez et al. (2023), appendix, as of Douze et al. (2021). Every query gives up to a hundred candidates;
all pairs of a query and a candidate are ranked together by their distance, and a pair is right when the query is a copy
of that very image. Queries are one random edit of each registered image, and unrelated images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from workers.evaluation.searching import Candidates, Positions
from workers.evaluation.uncertainty import Interval, bootstrap, percentiles, resampled
from workers.index.verdicts.score import COHORT, LEFT_OUT

__all__ = ["DEPTH", "AllPairs", "RankRow", "all_pairs", "rank_rows"]

DEPTH: Final = 100
_RANKS: Final = (1, 10, 100)
_PRECISION: Final = 0.9
_RESAMPLES: Final = 200
_NONE: Final = -2  # a position that no candidate has


@dataclass(frozen=True)
class RankRow:
    """R@k: the share of copies whose own image is among the first `k` entries; its interval is over photographs."""

    index: str
    nprobe: int
    activated: bool
    k: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True)
class AllPairs:
    """One ranking of all pairs.

    Attributes:
        normalised: whether distances were divided by the mean of the query's own 11th to 41st, as the score does.
        average_precision: micro-average precision (μAP), and its interval over queries.
        recall_at_90: the share of copies that is found at the threshold at which 90 % of the pairs are right.
    """

    index: str
    nprobe: int
    activated: bool
    normalised: bool
    queries: int
    copies: int
    average_precision: float
    low: float
    high: float
    recall_at_90: float


def rank_rows(
    index: str, nprobe: int, candidates: Candidates, photographs: int, *, activated: bool
) -> Iterator[RankRow]:
    """R@1, R@10 and R@100 of copies (E·N, k) of N photographs, one edit after the other."""
    right = np.tile(np.arange(photographs), len(candidates.positions) // photographs)
    hits = candidates.positions == right[:, None]
    for k in _RANKS:
        by_photograph = hits[:, :k].any(axis=1).reshape(-1, photographs).mean(axis=0)
        yield RankRow(index, nprobe, activated, k, float(by_photograph.mean()), *bootstrap(by_photograph))


def all_pairs(
    index: str, nprobe: int, copies: Candidates, unrelated: Candidates, *, activated: bool
) -> Iterator[AllPairs]:
    """Rank the pairs of copies (N, k), the i-th of photograph i, and of unrelated images (M, k)."""
    right = np.concatenate([np.arange(len(copies.positions)), np.full(len(unrelated.positions), _NONE)])
    positions = np.concatenate([copies.positions, unrelated.positions])
    distances = np.concatenate([copies.distances, unrelated.distances])
    correct, count = positions == right[:, None], len(copies.positions)
    for normalised, ranked in ((False, distances), (True, _normalised(distances))):
        area, interval, recall = _ranked(ranked, correct, count)
        yield AllPairs(index, nprobe, activated, normalised, len(right), count, area, *interval, recall)


def _normalised(distances: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each query's distances over the mean of its cohort; a query without one is compared with the others' mean."""
    others = distances[:, LEFT_OUT : LEFT_OUT + COHORT + 1].astype(np.float64)
    counts = np.isfinite(others).sum(axis=1)
    sums = np.where(np.isfinite(others), others, 0).sum(axis=1)
    usual = sums.sum() / max(counts.sum(), 1) or 1.0
    means = np.where(counts > 0, sums / np.maximum(counts, 1), usual)
    return (distances / np.maximum(means, 1e-12)[:, None]).astype(np.float32)


def _ranked(
    distances: npt.NDArray[np.float32], correct: npt.NDArray[np.bool_], copies: int
) -> tuple[float, Interval, float]:
    """μAP, its interval, and the recall at 90 % precision. Pairs of one distance pass a threshold together."""
    flat, queries = distances.ravel(), np.repeat(np.arange(len(distances)), distances.shape[1])
    order = np.argsort(flat, kind="stable")
    order = order[np.isfinite(flat[order])]
    hits = correct.ravel()[order]
    if not hits.any():
        return 0.0, (0.0, 0.0), 0.0
    values = flat[order]
    groups = np.cumsum(np.append(False, values[1:] != values[:-1]))
    kept = groups <= groups[np.flatnonzero(hits)[-1]]  # what comes after the last right pair changes nothing
    ends = np.append(np.nonzero(np.diff(groups[kept]))[0], kept.sum() - 1)[groups[kept]]
    of_query, hits = queries[order][kept], hits[kept]
    area, precision, recall = _area(np.ones(len(distances)), of_query, hits, ends, copies)
    enough = np.flatnonzero(precision >= _PRECISION)
    draws = resampled(len(distances), _RESAMPLES)
    areas = [_area(weights, of_query, hits, ends, copies)[0] for weights in draws]
    return area, percentiles(np.array(areas)), float(recall[enough[-1]]) if len(enough) else 0.0


def _area(
    weights: npt.NDArray[np.floating | np.integer], of_query: Positions, hits: npt.NDArray[np.bool_],
    ends: Sequence[int] | Positions, copies: int,
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:  # fmt: skip
    """The area below the curve of precision over recall, and both, where each query counts as often as it weighs."""
    weight = weights[of_query].astype(np.float64)
    right = np.cumsum(weight * hits)[ends]
    precision = right / np.maximum(np.cumsum(weight)[ends], 1e-12)
    total = max(float(weights[:copies].sum()), 1.0)
    return float((weight * hits * precision).sum() / total), precision, right / total
