"""Copy detection: with what precision and recall are copies told from images that the index does not know?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.evaluation.searching import FirstMatches

__all__ = ["Detection", "detect"]

_PRECISION = 0.9


@dataclass(frozen=True)
class Detection:
    """A precision–recall curve: a point for each of M thresholds, the distances that occur.

    Attributes:
        recall: (M,) share of all copies whose right original is among the first matches within that distance.
        precision: (M,) share of those first matches that are right.
        average_precision: micro-average precision (μAP): the area below the curve.
        threshold: the largest distance at which precision is still 90 %; None where it never is.
        recall_at_threshold: the recall there.
    """

    recall: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    average_precision: float
    threshold: float | None
    recall_at_threshold: float


def detect(copies: FirstMatches, right: npt.NDArray[np.int64], unrelated: FirstMatches) -> Detection:
    """Rank by distance the first matches of copies, whose originals are at positions `right` (M,), and of unrelated
    images.

    Matches of one distance, of which a quantised index gives many, pass a threshold together or not at all.
    """
    correct = np.concatenate([copies.positions == right, np.zeros(len(unrelated.positions), dtype=bool)])
    distances = np.concatenate([copies.distances, unrelated.distances])
    order = np.argsort(distances, kind="stable")
    order = order[np.isfinite(distances[order])]  # where nothing was found, nothing is claimed
    ranked = distances[order]
    last = np.nonzero(np.append(ranked[1:] != ranked[:-1], True))[0] if len(ranked) else np.empty(0, dtype=int)
    hits = np.cumsum(correct[order])[last]
    precision = hits / (last + 1)
    recall = hits / max(len(right), 1)
    area = float(np.sum(np.diff(recall, prepend=0) * precision))
    enough = np.nonzero(precision >= _PRECISION)[0]
    if not len(enough):
        return Detection(recall, precision, area, None, 0.0)
    best = enough[-1]
    return Detection(recall, precision, area, float(ranked[last][best]), float(recall[best]))
