"""Copy detection: with what precision and recall are copies told from images that the index does not know?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.evaluation.searching import First

__all__ = ["Detection", "detect"]

_PRECISION = 0.9


@dataclass(frozen=True)
class Detection:
    """A precision–recall curve over all thresholds.

    Attributes:
        recall: (M,) share of all copies whose right original is among the M nearest first matches.
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


def detect(copies: First, right: npt.NDArray[np.int64], unrelated: First) -> Detection:
    """Rank the first matches of copies, whose originals stand at `right` (M,), and of unrelated images by distance."""
    correct = np.concatenate([copies.positions == right, np.zeros(len(unrelated.positions), dtype=bool)])
    distances = np.concatenate([copies.distances, unrelated.distances])
    order = np.argsort(distances, kind="stable")
    order = order[np.isfinite(distances[order])]  # where nothing was found, nothing is claimed
    hits = np.cumsum(correct[order])
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / max(len(right), 1)
    area = float(np.sum(precision[correct[order]]) / max(len(right), 1))
    enough = np.nonzero(precision >= _PRECISION)[0]
    if not len(enough):
        return Detection(recall, precision, area, None, 0.0)
    last = enough[-1]
    return Detection(recall, precision, area, float(distances[order][last]), float(recall[last]))
