"""What a score is worth in one collection: shares of unrelated images and of copies that have it, or a better one."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from tasks.messages import Frozen

__all__ = ["Calibration", "Curve", "needed_queries", "wilson"]

_Z95: Final = 1.96
_Z95_ONE_SIDED: Final = 1.645
# By the rule of three, no false match among 3 / rate queries means at most that rate, with 95 % confidence.
_QUERIES_TIMES_RATE: Final = 3
# A rate is a mean over all assets that might be there. Of a few, one that resembles many images weighs more than that:
# measured with 2 and with 10 photographs, unrelated ones matched at 1.8 to 2.4 % instead of 1 %.
_FEWEST_ASSETS: Final = 100


class Curve(Frozen):
    """Calibration at one nprobe.

    Attributes:
        scale: the median of the cohorts' means.
        rates: for each number of assets of :attr:`Calibration.assets`, for each of :attr:`Calibration.scores`, the
            share of unrelated queries for which some asset has that score or a better one: the upper end of its
            one-sided 95 % confidence interval.
        copies: for each score, the share of edited copies whose own asset has that score or a better one and is the
            first match; empty when no copies were measured.
    """

    nprobe: int = Field(ge=1)
    scale: float
    rates: list[list[float]]
    copies: list[float] = Field(default_factory=list)


class Calibration(Frozen):
    """False-match rates of one codec by score, number of assets and nprobe.

    The rate grows with the number of assets, each of which could be the false match; so a collection's threshold
    follows its size.

    Attributes:
        fpr: the rate that verdicts use unless the query asks for another.
        background: what the unrelated queries were.
        queries: how many there were.
        entries: how many entries of the index were tried as the false match.
        assets: ascending numbers of assets.
        scores: ascending.
        copies_of: what the copies were made of.
    """

    fpr: float = Field(gt=0, lt=1)
    background: str
    queries: int = Field(ge=1)
    entries: int = Field(ge=1)
    assets: list[int]
    scores: list[float]
    curves: list[Curve] = Field(min_length=1)
    copies_of: str = ""

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        for curve in self.curves:
            if [len(row) for row in curve.rates] != [len(self.scores)] * len(self.assets):
                raise ValueError("a curve has a rate for each number of assets and each score")
            if curve.copies and len(curve.copies) != len(self.scores):
                raise ValueError("a curve has a share of copies for each score")
        return self

    def with_copies_of(self, other: Calibration) -> Calibration:
        """The same with the copies that were measured elsewhere: scores mean the same in any index of an extractor."""
        if self.scores != other.scores:
            return self
        copies = [curve.model_copy(update={"copies": other.curve(curve.nprobe).copies}) for curve in self.curves]
        return self.model_copy(update={"curves": copies, "copies_of": other.copies_of})

    def at_least(self, other: Calibration) -> Calibration:
        """The same with the rates of another, of the same extractor, where those are higher."""
        if (self.scores, self.assets) != (other.scores, other.assets):
            return self
        curves = []
        for curve in self.curves:
            rates = np.maximum(curve.rates, other.curve(curve.nprobe).rates)
            curves.append(curve.model_copy(update={"rates": rates.tolist()}))
        return self.model_copy(update={"curves": curves, "queries": max(self.queries, other.queries)})

    def curve(self, nprobe: int) -> Curve:
        """The curve for a search: of the least nprobe that is not below its own, since more cells give more false
        matches."""
        deeper = [curve for curve in self.curves if curve.nprobe >= nprobe]
        return min(deeper, key=lambda c: c.nprobe) if deeper else max(self.curves, key=lambda c: c.nprobe)

    def rate(self, score: float, nprobe: int, assets: int) -> float:
        """Share of unrelated queries that have a match of this score or a better one."""
        return _between(score, self.scores, _curve_of(_IdentityKey(self), nprobe, assets).rates)

    def copies(self, score: float, nprobe: int) -> float | None:
        """Share of copies found with this score or a better one; None when it was not measured."""
        found = self.curve(nprobe).copies
        return float(np.interp(score, self.scores, found)) if found else None

    def threshold(self, fpr: float, nprobe: int, assets: int) -> float | None:
        """The highest score at which at most a share `fpr` of unrelated queries match; None when there were too few
        queries to tell, or even the best score is reached by more."""
        return None if self.queries < needed_queries(fpr) else self._reached(fpr, nprobe, assets)

    def interval(self, fpr: float, nprobe: int, assets: int) -> tuple[float, float] | None:
        """Between which scores the one lies that a share `fpr` of unrelated images really reaches, with 95 % confidence
        on either side; :meth:`threshold` is the lower one. None where that is.

        A query's rate is between 0 and 1, so that its variance is at most that of a yes or no.
        """
        return _interval(_IdentityKey(self), fpr, nprobe, assets)

    def _reached(self, rate: float, nprobe: int, assets: int) -> float | None:
        """The highest score at which the rate's upper end is at most this."""
        return _score_reached(_IdentityKey(self), rate, nprobe, assets)

    def probabilities(self, scores: Sequence[float], nprobe: int, assets: int, views: int = 1) -> list[float | None]:
        """How likely a copy is by each score, where copies and unrelated images are asked for equally often: the share
        of copies that look this bad or worse, beside the share of unrelated images that look this good or better in one
        of `views`."""
        known = _curve_of(_IdentityKey(self), nprobe, assets)
        most = known.copies[-1] if known.copies else 0.0
        if most <= 0:
            return [None] * len(scores)
        worse = [1.0 - _between(score, self.scores, known.copies) / most for score in scores]
        better = [min(1.0, views * _between(score, self.scores, known.rates)) for score in scores]
        return list(map(_likely, worse, better))


class _Known(NamedTuple):
    """Of a calibration at one nprobe and number of assets, by score: `rates` ascending, `copies` maybe empty."""

    rates: list[float]
    copies: list[float]


class _IdentityKey:
    """Tells calibrations apart by what they are, not by what they say, which would take long to compare."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration

    def __hash__(self) -> int:
        return id(self.calibration)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _IdentityKey) and other.calibration is self.calibration


@lru_cache(maxsize=64)
def _curve_of(key: _IdentityKey, nprobe: int, assets: int) -> _Known:
    """Kept, since an answer asks a dozen times, and many answers of one collection ask the same."""
    known = key.calibration
    curve = known.curve(nprobe)
    place = np.interp(math.log(max(assets, _FEWEST_ASSETS)), np.log(known.assets), np.arange(len(known.assets)))
    low = int(place)  # between two numbers of assets, by their logarithms
    fewer, more = np.asarray(curve.rates[low]), np.asarray(curve.rates[min(low + 1, len(curve.rates) - 1)])
    rates = np.maximum.accumulate(fewer + (place - low) * (more - fewer))
    return _Known(rates.tolist(), curve.copies)


def _between(score: float, scores: Sequence[float], values: Sequence[float]) -> float:
    """The value at a score, by those at ascending scores; 0 below them. For one score NumPy takes ten times as long."""
    place = bisect_right(scores, score)
    if place in (0, len(scores)):
        return values[-1] if place else 0.0
    low, value = scores[place - 1], values[place - 1]
    return value + (score - low) * (values[place] - value) / (scores[place] - low)


@lru_cache(maxsize=64)
def _interval(key: _IdentityKey, fpr: float, nprobe: int, assets: int) -> tuple[float, float] | None:
    """See :meth:`Calibration.interval`; kept likewise."""
    known = key.calibration
    low = known.threshold(fpr, nprobe, assets)
    if low is None:
        return None
    mean = wilson(fpr * known.queries, known.queries, _Z95_ONE_SIDED)[1]  # with `fpr` as the lower end
    upper_end = mean + _Z95_ONE_SIDED * math.sqrt(mean * (1 - mean) / known.queries)
    return low, max(low, _score_reached(key, min(1.0, upper_end), nprobe, assets) or low)


@lru_cache(maxsize=64)
def _score_reached(key: _IdentityKey, rate: float, nprobe: int, assets: int) -> float | None:
    """See :meth:`Calibration._reached`; kept likewise."""
    scores, rates = key.calibration.scores, _curve_of(key, nprobe, assets).rates
    passed = bisect_right(rates, rate)
    if passed == 0:
        return None
    if passed == len(rates):
        return scores[-1]
    low, high = rates[passed - 1], rates[passed]
    part = (rate - low) / (high - low)
    return scores[passed - 1] + part * (scores[passed] - scores[passed - 1])


def _likely(worse: float, better: float) -> float:
    return worse / (worse + better) if worse + better > 0 else 0.5


def needed_queries(fpr: float) -> int:
    """How many unrelated queries a false-positive rate takes to be measured."""
    return math.ceil(_QUERIES_TIMES_RATE / fpr)


def wilson(successes: float, trials: int, deviations: float = _Z95) -> tuple[float, float]:
    """Wilson's interval of a share, of 95 % by default (Wilson, 1927)."""
    if not trials:
        return 0.0, 1.0
    share, z2 = successes / trials, deviations**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = deviations * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)
