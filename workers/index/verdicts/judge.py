"""The verdict of a query: whether its first match is a copy, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from tasks.errors import ShardUnavailable
from tasks.results import Assessment, Verdict
from workers.index.codec.stored import FeatureType
from workers.index.verdicts.calibration import Calibration, needed_queries
from workers.index.verdicts.score import scores

__all__ = ["Evidence", "Judgement", "check_searched", "judge"]

_POSSIBLE_TIMES: Final = 10
_MOST_POSSIBLE: Final = 0.1
_UNINFORMATIVE: Final = (
    "The image looks like too many different ones, such as pages of text or plain surfaces, "
    "for a match to mean anything."
)


@dataclass(frozen=True)
class Evidence:
    """What one search found.

    Attributes:
        distances: of the matches, ascending.
        cohort: distances that they are compared with, ascending.
        nearest_distractor: None where there is none.
        assets: how many could have been found.
        nprobe: cells that were searched.
        crowded: whether the query lies where many different images do.
        hidden: whether those, or the plain images around it, are as near as its first match.
        calibration: None for collections of version 0.1.0, which have `threshold`, a distance, instead.
        reranked: how the features are stored whose distances these are; None where they are those of codes.
        unsearched: the share (0..1) of its cells that were not searched.
        views: how many versions of the query were searched, each of which could have given a false match.
        by_metadata: whether only assets with some metadata were wanted.
    """

    distances: Sequence[float]
    cohort: Sequence[float]
    nearest_distractor: float | None
    assets: int
    nprobe: int
    crowded: bool
    hidden: bool
    calibration: Calibration | None
    threshold: float | None
    reranked: FeatureType | None = None
    unsearched: float = 0.0
    views: int = 1
    by_metadata: bool = False

    @cached_property
    def scores(self) -> list[float] | None:
        """Of the matches; None where there is no calibration to give them a meaning."""
        if self.calibration is None:
            return None
        scale = self.calibration.curve(self.nprobe).scale
        return scores(self.distances, self.cohort, scale)

    @property
    def nothing(self) -> str:
        """Why there is no match, where there is none."""
        wanted = "No asset with this metadata" if self.by_metadata else "No asset"
        return f"{wanted} was found in the searched cells: a higher nprobe searches more."

    @property
    def rank(self) -> tuple[float, float]:
        """Of several searches, the one with the least has the best first match."""
        scores = self.scores
        nearest = self.distances[0] if self.distances else math.inf
        return (scores[0] if scores else math.inf), nearest

    def probabilities(self, scores: Sequence[float]) -> list[float | None]:
        if self.calibration is None:
            return [None] * len(scores)
        return self.calibration.probabilities(scores, self.nprobe, self.assets, self.views)


@dataclass(frozen=True)
class Judgement:
    """`threshold`: the distance up to which the first match would count."""

    verdict: Verdict
    threshold: float | None
    assessment: Assessment


def judge(evidence: Evidence, fpr: float | None = None, threshold: float | None = None) -> Judgement:
    """Judge a query by its first match.

    Args:
        fpr: the false-match rate to keep; the collection's by default.
        threshold: a distance to use in place of a calibrated score.
    """
    if threshold is None and evidence.calibration is not None:
        by_score = _by_score(evidence, evidence.calibration, fpr or evidence.calibration.fpr)
        return _partial(by_score, evidence.unsearched, {"match": "possible", "no_match": "incomplete"})
    return _partial(_by_distance(evidence, threshold), evidence.unsearched, {"no_match": "incomplete"})


def check_searched(evidence: Evidence) -> None:
    """Raise ShardUnavailable if some cells were not searched: for what has to be whole."""
    if evidence.unsearched:
        raise ShardUnavailable(
            f"{evidence.unsearched:.0%} of the cells were not searched: a shard did not answer in time. `aii status` "
            "says which one has no worker."
        )


def _partial(judgement: Judgement, unsearched: float, instead: Mapping[Verdict, Verdict]) -> Judgement:
    """A verdict that says less, where some cells were not searched: a nearer asset may be there. A score is lower than
    it should be, for want of the images there, so the rate of false matches is not kept; a distance is what it is."""
    if not unsearched:
        return judgement
    said = judgement.assessment
    reason = f"{said.reason} {unsearched:.0%} of the cells were not searched: a shard did not answer in time."
    assessment = said.model_copy(update={"reason": reason, "unsearched": unsearched, "false_match_rate": None})
    return replace(judgement, verdict=instead.get(judgement.verdict, judgement.verdict), assessment=assessment)


def _by_distance(evidence: Evidence, threshold: float | None) -> Judgement:
    limit = evidence.threshold if threshold is None else threshold
    first = evidence.distances[0] if evidence.distances else None
    facts = _facts(evidence)
    if limit is None:
        return Judgement("uncalibrated", None, Assessment(reason="The collection has no threshold.", **facts))
    if first is None:
        return Judgement("no_match", limit, Assessment(reason=evidence.nothing, **facts))
    near = first <= limit
    reason = f"The distance {first:.3f} is {'within' if near else 'beyond'} the threshold {limit:.3f}."
    return Judgement("match" if near else "no_match", limit, Assessment(reason=reason, **facts))


def _by_score(evidence: Evidence, calibration: Calibration, fpr: float) -> Judgement:
    views = evidence.views
    possible_fpr = max(fpr, min(_POSSIBLE_TIMES * fpr, _MOST_POSSIBLE))
    limit, possible = (calibration.threshold(r / views, evidence.nprobe, evidence.assets) for r in (fpr, possible_fpr))
    scores = evidence.scores or []
    first = scores[0] if scores else None
    between = calibration.interval(fpr / views, evidence.nprobe, evidence.assets)
    facts = _facts(evidence) | {
        "fpr": fpr, "threshold": limit, "threshold_high": between and between[1],
        "possible_fpr": possible_fpr, "possible_threshold": possible,
        "false_match_rate": None if first is None or first > calibration.scores[-1]
        else min(1.0, views * calibration.rate(first, evidence.nprobe, evidence.assets)),
    }  # fmt: skip
    verdict, reason = _banded(evidence, first, limit, possible, fpr)
    if verdict == "uncalibrated":
        reason = _too_few(calibration, fpr / views)
    elif between and verdict != "uninformative" and first is not None:
        reason += f" With 95 % confidence that threshold is at most {between[1]:.3f}."
    if evidence.reranked and first is not None:
        reason += f" Distances are of stored features ({evidence.reranked})."
    distance = None
    if limit is not None and first:
        distance = limit * evidence.distances[0] / first
    return Judgement(verdict, distance, Assessment(reason=reason, **facts))


def _banded(
    evidence: Evidence, first: float | None, limit: float | None, possible: float | None, fpr: float
) -> tuple[Verdict, str]:
    if evidence.crowded and evidence.hidden:
        return "uninformative", _UNINFORMATIVE
    if first is None:
        return "no_match", evidence.nothing
    if limit is None:
        return "uncalibrated", ""
    assets = "one asset" if evidence.assets == 1 else f"{evidence.assets:,} assets"
    verdict = _band(first, limit, possible)
    if evidence.hidden and verdict != "no_match":
        return "uninformative", _UNINFORMATIVE
    where = "within" if verdict == "match" else "beyond"
    close = ", but close to it" if verdict == "possible" else ""
    among = f"which at most a share {fpr:.2g} of unrelated images reaches among {assets}"
    return verdict, f"The score {first:.3f} is {where} {limit:.3f}, {among}{close}."


def _band(first: float, limit: float, possible: float | None) -> Verdict:
    if first <= limit:
        return "match"
    return "possible" if possible is not None and first <= possible else "no_match"


def _too_few(calibration: Calibration, fpr: float) -> str:
    needed = needed_queries(fpr)
    if calibration.queries >= needed:
        return f"Even the best score does not keep a false-match rate of {fpr:.2g} among so many assets."
    return (
        f"A false-match rate of {fpr:.2g} takes {needed:,} unrelated images to measure, and the collection has "
        f"{calibration.queries:,}: build it with `--background`, or ask for a higher rate."
    )


def _facts(evidence: Evidence) -> dict[str, Any]:
    distances = evidence.distances
    margin = distances[1] - distances[0] if len(distances) > 1 else None
    return {
        "assets": evidence.assets, "margin": margin, "nearest_distractor": evidence.nearest_distractor,
        "reranked": evidence.reranked,
    }  # fmt: skip
