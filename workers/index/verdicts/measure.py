"""Measures a calibration: what unrelated queries, and edited copies, score in one index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Codes, Features, Positions, search_many
from workers.index.codec.gpu import has_gpu_form, on_gpu
from workers.index.codec.stored import exact_distances
from workers.index.verdicts.calibration import Calibration, Curve
from workers.index.verdicts.duplicates import neighbours
from workers.index.verdicts.score import COHORT, COHORT_CELLS, cohort, score

__all__ = [
    "Contents", "Queries", "calibrate", "copies_found", "entries_as_queries", "first_assets", "searched_on_gpu",
]  # fmt: skip

_NPROBES: Final = (1, 4, 16, 64)
_SCORES: Final = tuple(round(float(s), 4) for s in np.linspace(0.1, 1.0, 73))
_ASSETS: Final = tuple(10**n for n in range(9))
_CANDIDATES: Final = 200  # of one query
_TOGETHER: Final = 256  # queries searched at once
_CONFIDENT: Final = 1.645  # standard errors, for a bound that holds with 95 % confidence

_T = TypeVar("_T")
Scores = npt.NDArray[np.float64]
# Of one query: distances, ascending, and positions, −1 for none.
Row: TypeAlias = tuple[Features, Positions]


@dataclass(frozen=True)
class Contents:
    """An index to be calibrated: codes (M, code_size), of which the first `assets` belong to assets and the others to
    distractors. `features`, of a collection that keeps them, gives those (N, D) at positions (N,). `on_gpu` is the
    copy of the index that a GPU searches."""

    codec: Codec
    codes: Codes
    assets: int
    features: Callable[[Positions], Features] | None = None
    on_gpu: Any = None

    @cached_property
    def index(self) -> Any:
        """Made once."""
        return self.codec.filled(self.codes)

    def nearest(self, features: Features, nprobe: int, depth: int) -> Iterator[Row]:
        """For each query (Q, D), distances, ascending, and positions of `depth` entries, −1 for none: by features where
        the collection keeps them."""
        index = self.index if self.on_gpu is None else self.on_gpu
        found = search_many(self.codec, index, features, nprobe, depth)
        for feature, distances, positions in zip(features, *found, strict=True):
            if self.features is None:
                yield distances, positions
                continue
            there = positions[positions >= 0]
            exact = exact_distances(feature, self.features(there))
            order = np.argsort(exact, kind="stable")
            yield exact[order], there[order]

    @property
    def nprobes(self) -> tuple[int, ...]:
        return _NPROBES if self.codec.has_cells else (1,)


@dataclass(frozen=True)
class Queries:
    """Unrelated features (Q, D). `related[i]` are the positions of entries that query i may be a copy of, such as its
    own: they count neither as matches nor in the cohort."""

    features: Features
    related: Sequence[frozenset[int]]


def entries_as_queries(entries: Features, positions: npt.NDArray[np.int64], near: float) -> Queries:
    """Some of the features (M, D) of an index as queries, each unrelated to all but itself and its near-duplicates.

    Args:
        near: the squared distance below which two features are of one picture.
    """
    features = entries[positions]
    related = zip(positions.tolist(), neighbours(features, entries, near), strict=True)
    return Queries(features, [near_ones | {own} for own, near_ones in related])


def searched_on_gpu(contents: Contents, queries: int, run: Callable[[Contents], _T]) -> _T:
    """What `run` finds by searches for so many queries: on a GPU, where there is one and they are enough."""
    if contents.on_gpu is not None:
        return run(contents)
    return on_gpu(
        "A search for many queries", _work(contents, queries),
        lambda gpu: run(replace(contents, on_gpu=gpu.copied(contents.index))), lambda: run(contents),
    )  # fmt: skip


def _work(contents: Contents, queries: int) -> float:
    """About how many multiplications searches at each nprobe take, and those for cohorts. To look up the parts of a
    code takes about as long as to compare a feature."""
    codec = contents.codec
    if not has_gpu_form(contents.index):
        return 0.0
    searched = sum(min(1.0, n / codec.cells) for n in (*_NPROBES, COHORT_CELLS, COHORT_CELLS)) if codec.has_cells else 1
    return float(queries) * len(contents.codes) * codec.inner_dimension * searched


def calibrate(contents: Contents, sets: Sequence[Queries], fpr: float, background: str) -> Calibration:
    """Try every entry of the index as the asset that an unrelated query might be taken for.

    With n of M entries scoring at most s for a query, N assets like them contain none of those n with the probability
    (1 - n / M) ** N; what remains is this query's rate, and the mean over the queries is the false-match rate. Of
    several sets of queries, the higher rate counts.
    """
    curves = searched_on_gpu(
        contents, sum(len(some.features) for some in sets),
        lambda searched: [_curve(searched, sets, nprobe) for nprobe in searched.nprobes],
    )  # fmt: skip
    return Calibration(
        fpr=fpr, background=background, queries=max(len(some.features) for some in sets), entries=len(contents.codes),
        assets=list(_ASSETS), scores=list(_SCORES), curves=curves,
    )  # fmt: skip


def first_assets(
    contents: Contents, curve: Curve, features: Features
) -> tuple[npt.NDArray[np.int64], Scores, npt.NDArray[np.bool_]]:
    """The first matches of queries (Q, D).

    Returns:
        Positions (Q,) of the nearest assets, −1 where there is none among the nearest entries; their scores (Q,),
        infinite likewise; and whether no distractor is nearer (Q,).
    """
    return searched_on_gpu(contents, len(features), lambda searched: _first_assets(searched, curve, features))


def _first_assets(
    contents: Contents, curve: Curve, features: Features
) -> tuple[npt.NDArray[np.int64], Scores, npt.NDArray[np.bool_]]:
    positions = np.full(len(features), -1, dtype=np.int64)
    scores = np.full(len(features), np.inf)
    nearest = np.zeros(len(features), dtype=bool)
    depth = min(_CANDIDATES, len(contents.codes))
    for start in range(0, len(features), _TOGETHER):
        part = features[start : start + _TOGETHER]
        rows = _searched(contents, part, curve.nprobe, depth)
        for number, ((distances, found), around) in enumerate(rows, start):
            assets = (found >= 0) & (found < contents.assets)
            if assets.any():
                own = float(distances[assets][0])
                positions[number], nearest[number] = found[assets][0], assets[0]
                scores[number] = score(own, _cohort(contents, *around), curve.scale)
    return positions, scores, nearest


def copies_found(contents: Contents, curve: Curve, copies: Features, own: Sequence[int]) -> list[float]:
    """For each score of a calibration, the share of edited copies (Q, D) whose own asset, at the position `own` of the
    index, is the first match with that score or a better one."""
    positions, scores, _ = first_assets(contents, curve, copies)
    right = positions == np.asarray(own)
    return [round(float(np.mean(right & (scores <= limit))), 5) for limit in _SCORES]


def _curve(contents: Contents, sets: Sequence[Queries], nprobe: int) -> Curve:
    found = [list(_found(contents, queries, nprobe)) for queries in sets]
    means = [np.mean(others) for some in found for _, others in some if len(others)]
    scale = float(np.median(means)) if means else 1.0
    rates = np.max([_rates(some, scale, len(contents.codes)) for some in found], axis=0)
    return Curve(nprobe=nprobe, scale=scale, rates=[[float(f"{rate:.4g}") for rate in row] for row in rates])


def _rates(found: Sequence[tuple[Scores, Scores]], scale: float, entries: int) -> Scores:
    """(assets, scores): upper ends of the false-match rates' confidence intervals."""
    passing = [np.searchsorted(np.sort(_scores(*pair, scale)), _SCORES, side="right") for pair in found]
    share = np.minimum(np.stack(passing) / entries, 1.0)
    rows = []
    for count in _ASSETS:
        rate = 1 - (1 - share) ** count
        rows.append(rate.mean(axis=0) + _CONFIDENT * rate.std(axis=0) / np.sqrt(len(rate)))
    bounded: Scores = np.minimum(np.stack(rows), 1.0)
    return bounded


def _scores(distances: Scores, others: Scores, scale: float) -> Scores:
    """(K,) as :func:`workers.index.verdicts.score.score` gives them one by one."""
    if not len(others):
        return distances / scale
    nearest = others[:COHORT]
    means = np.full(len(distances), nearest.mean())
    inside = np.isin(distances, nearest)
    if len(others) > 1:
        means[inside] = (others.sum() - distances[inside]) / (len(others) - 1)
    scores: Scores = distances / np.maximum(means, np.finfo(np.float64).tiny)
    return scores


def _found(contents: Contents, queries: Queries, nprobe: int) -> Iterator[tuple[Scores, Scores]]:
    """For each query, the distances of its nearest entries, and of its cohort."""
    for start in range(0, len(queries.features), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        related = queries.related[part]
        depth = min(_CANDIDATES + max(map(len, related), default=0), len(contents.codes))
        found = _searched(contents, queries.features[part], nprobe, depth)
        for (near, around), own in zip(found, related, strict=True):
            kept, others = _without(*near, own), _without(*around, own)
            yield kept[0].astype(np.float64), np.array(_cohort(contents, *others))


def _searched(contents: Contents, features: Features, nprobe: int, depth: int) -> Iterator[tuple[Row, Row]]:
    """For each query (Q, D), what is nearest in `nprobe` cells, and in those that a cohort is taken from."""
    near = list(contents.nearest(features, nprobe, depth))
    around = near
    if contents.codec.has_cells and nprobe < COHORT_CELLS:
        around = list(contents.nearest(features, COHORT_CELLS, depth))
        if contents.on_gpu is not None:
            near = [_as_in(around_it, found) for found, around_it in zip(near, around, strict=True)]
    yield from zip(near, around, strict=True)


def _as_in(deeper: Row, found: Row) -> Row:
    """What was found, at the distances that a deeper search gives the same entries: on a GPU their last bits may
    differ, and a match is told from its cohort by its distance."""
    distances, positions = found
    order = np.argsort(deeper[1], kind="stable")
    places = order[np.minimum(np.searchsorted(deeper[1], positions, sorter=order), len(order) - 1)]
    return np.where(deeper[1][places] == positions, deeper[0][places], distances), positions


def _without(distances: Features, positions: Positions, own: frozenset[int]) -> Row:
    counted = ~np.isin(positions, list(own))
    return distances[counted & (positions >= 0)], positions[counted & (positions >= 0)]


def _cohort(contents: Contents, distances: Features, positions: Positions) -> list[float]:
    there, assets = positions >= 0, positions < contents.assets
    return cohort(distances[there & ~assets].tolist(), distances[there & assets].tolist())
