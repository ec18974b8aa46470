"""The score of a match: its distance, relative to the distances of the images around the query that it is no copy of.

A raw distance means little by itself: in a crowded region of the feature space (faces, skies, pages of text) unrelated
images are as near as edited copies are elsewhere. Score normalisation divides that out; the same idea gives SSCD ten
points of µAP on DISC21 (Pizzi et al., 2022, section 4.3). The cohort is what a search of the same index finds, so that
it costs nothing and sees the same quantisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["COHORT", "COHORT_CELLS", "LEFT_OUT", "cohort", "score", "scores"]

# Measured on photographs kept out of training (IVF512,PQ8x8, nprobe 1, all 40,000 entries as candidates), copies found
# at a false-positive rate of 1 % / 0.1 %: distance alone 0.60 / 0.44; divided by the mean of the next hit 0.72 / 0.47,
# of 5 0.74 / 0.55, of 10 0.75 / 0.59, of 30 0.75 / 0.61. R@1 is 0.835.
COHORT: Final = 30
# At least so many cells are searched for them, also where the match is looked for in fewer: one cell of a small index
# holds few others, and far ones. Edited photographs matched at 3.07 % instead of 1 % so (SSCD, 3,000 references,
# IVF75,PQ8x8, nprobe 1), and match at 0.14 % with the others of 16 cells, as many copies being found.
COHORT_CELLS: Final = 16
# The nearest assets may be versions of the first match, which says nothing against it.
LEFT_OUT: Final = 10
# So is whatever is as far as the first match, but for rounding: an archive may hold one file a hundred times.
_TIE_TOLERANCE: Final = 1 + 1e-5


def cohort(distractors: Sequence[float], assets: Sequence[float]) -> list[float]:
    """The distances that a match is compared with, nearest first.

    Args:
        distractors: distances of the nearest distractors, ascending.
        assets: distances of the nearest assets, ascending; the first ones are left out, and those as near as the first.
    """
    rest = [distance for distance in assets[LEFT_OUT : LEFT_OUT + COHORT + 1] if distance > assets[0] * _TIE_TOLERANCE]
    return sorted([*distractors[: COHORT + 1], *rest])[: COHORT + 1]


def score(distance: float, others: Sequence[float], scale: float) -> float:
    """A match's distance over the mean of its cohort; 0 is a perfect copy, 1 is no nearer than anything else.

    Args:
        others: the cohort's distances, ascending; one that equals `distance` is the match itself and is left out.
        scale: the usual mean, in whose place it is taken when the search found no cohort.
    """
    return scores([distance], others, scale)[0]


def scores(distances: Sequence[float], others: Sequence[float], scale: float) -> list[float]:
    """The same of several matches of one query."""
    usual, known = _mean(others, scale), frozenset(others)
    means = [_mean(_without(others, distance), scale) if distance in known else usual for distance in distances]
    return [d / mean if mean > 0 else float(d > 0) for d, mean in zip(distances, means, strict=True)]


def _mean(others: Sequence[float], scale: float) -> float:
    nearest = others[:COHORT]
    return sum(nearest) / len(nearest) if nearest else scale


def _without(others: Sequence[float], distance: float) -> list[float]:
    rest = list(others)
    rest.remove(distance)
    return rest
