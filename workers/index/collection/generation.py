"""One generation of a collection as it is mapped, and what a search of it is made of."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.results import Match
from workers.index.codec.codec import Codec, Features, search
from workers.index.codec.probes import Probe
from workers.index.codec.stack import Found
from workers.index.codec.stored import exact_distances
from workers.index.collection.changes import Change
from workers.index.collection.delta import Delta
from workers.index.collection.finder import Contents, Finder, Sought
from workers.index.collection.journal import name_in
from workers.index.collection.manifest import Manifest, Pointer
from workers.index.collection.reranking import RERANKED, reranked
from workers.index.collection.segment import Entry, Hit, Segment
from workers.index.collection.segments import Segments, first_of
from workers.index.collection.translation import Translation
from workers.index.verdicts.background import Background, Surroundings
from workers.index.verdicts.judge import Evidence
from workers.index.verdicts.score import COHORT, LEFT_OUT, cohort

__all__ = [
    "Asked",
    "Depths",
    "Generation",
    "Near",
    "Ranked",
    "asked_of",
    "evidence_of",
    "matches_of",
    "open_in",
    "supposed_hits",
]


@dataclass
class Generation:
    """One generation as it is mapped here, and its delta; `read_up_to` is the last journal entry applied to that. It is
    of the collection's `incarnation`, or of a later one if that has just begun."""

    manifest: Manifest
    pointer: Pointer
    codec: Codec
    translation: Translation
    contents: Contents
    background: Background | None
    delta: Delta
    read_up_to: str
    incarnation: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def assets(self) -> Segments:
        return self.contents.assets

    @property
    def exact(self) -> bool:
        """Whether distances are of features, not of their codes."""
        return self.codec.keeps_features or self.manifest.features is not None

    @property
    def usual_nprobe(self) -> int:
        return min(self.manifest.usual_nprobe, self.codec.cells or 1)

    def ranked(self, feature: Features, more: Sequence[Hit], found: Found, named: int | None) -> Ranked:
        """What was found for a feature (D,) in the segments, and `more`, nearest first: by their stored features where
        there are any.

        Args:
            named: how many hits are needed; None for all.
        """
        if stored := self.manifest.stored:
            hits = reranked(feature, [*more, *self.assets.hits(found)], stored)
            return Ranked(hits, [hit.distance for hit in hits])
        named = len(more) + len(found[0]) if named is None else named
        hits = self.assets.hits(first_of(found, named))
        distances: list[float] = found[2].tolist()
        if more:
            hits = sorted([*more, *hits], key=_distance)[:named]
            distances = sorted([*map(_distance, more), *distances])
        return Ranked(hits, distances)

    def _distractors_near(self, probe: Probe, k: int) -> Sought:
        """What has to be found to know the `k` nearest distractors."""
        return Sought(probe, max(k, RERANKED) if self.manifest.stored else k, distractors=True)

    def distractors(self, feature: Features, needed: Needed, finder: Finder) -> tuple[list[float], float | None]:
        """Distances of the distractors around a feature (D,), ascending, and of the nearest one in the cells of its
        matches, if there is any."""
        around = self._distractor_distances(feature, needed.distractors, COHORT + 1, finder)
        near = around
        if needed.near_distractors is not needed.distractors:
            near = self._distractor_distances(feature, needed.near_distractors, 1, finder)
        return around, near[0] if near else None

    def _distractor_distances(self, feature: Features, sought: Sought, k: int, finder: Finder) -> list[float]:
        """Of the `k` distractors nearest to a feature (D,), of those that are sought, ascending."""
        found = first_of(finder.find(sought), sought.k)
        if (stored := self.manifest.stored) is None:
            distances: list[float] = found[2].tolist()
            return distances
        if not len(found[0]):
            return []
        others = stored.decode(self.contents.distractors.stored(found))
        return sorted(exact_distances(feature, others).tolist())[:k]

    def needed(self, asked: Asked, depths: Depths, where: Mapping[str, str]) -> Needed:
        """What of the segments an answer needs, if so many entries of assets are enough."""
        matches = Sought(asked.probe, depths.matches if asked.two_searches else depths.compared, where)
        others = Sought(asked.around, depths.compared) if asked.two_searches else matches
        around = self._distractors_near(asked.around, COHORT + 1)
        one_probe = asked.probe is asked.around
        return Needed(matches, others, around, around if one_probe else self._distractors_near(asked.probe, 1))

    def parts(self) -> list[object]:
        """What it consists of. Python's lock is kept while an object is freed, with all that it alone refers to: who
        holds the parts when nothing else does any more frees them one by one, the last one first."""
        return [*self.contents.assets.parts(), *self.contents.distractors.parts(), *self.delta.parts()]

    def speed_up(self) -> None:
        """Give a delta that has become long a copy of the table that makes searches of a cell faster, of up to 64 MiB.
        No query waits until it is made."""
        with self.lock:
            lacking = self.delta.lacks_table
        if lacking:
            empty = self.codec.shells.empty()
            with self.lock:
                self.delta.use_table(empty)

    def change_of(self, asset_id: str) -> tuple[bool, Entry | None]:
        """Whether the delta says anything of an asset, and if so its entry; None for one that was removed."""
        with self.lock:
            changed = self.delta.supersedes(asset_id, self.delta.changes)
            return changed, self.delta.entry_of(asset_id) if changed else None


class Depths(NamedTuple):
    """How many entries have to be found for the matches of an answer, and to compare them with."""

    matches: int
    compared: int


class Needed(NamedTuple):
    """What is sought for one query: its matches, the assets around it, and the distractors around it and in the cells
    of its matches."""

    matches: Sought
    others: Sought
    distractors: Sought
    near_distractors: Sought


class Ranked(NamedTuple):
    """Entries near a query, nearest first: the first ones, and the distances of all."""

    hits: list[Hit]
    distances: list[float]


class Near(NamedTuple):
    """What was found for one query: its matches, the assets around it, the distances of the distractors around it, and
    that of the nearest one in the cells of its matches."""

    matches: Ranked
    others: Ranked
    distractors: list[float]
    nearest_distractor: float | None


@dataclass(frozen=True)
class Asked:
    """A query, prepared for a generation.

    Attributes:
        probe: the cells that its matches are looked for in.
        around: those that the images are in with which a match is compared; the same or more.
        hits, others: the delta's entries in these: those with the wanted metadata, and any.
        by_metadata: whether only some assets are wanted.
    """

    probe: Probe
    around: Probe
    hits: list[Hit]
    others: list[Hit]
    by_metadata: bool

    @property
    def two_searches(self) -> bool:
        """Whether a match is compared with other entries than it is found among."""
        return self.others is not self.hits


def open_in(generation: Generation | None) -> dict[str, Segment]:
    """The segments of a generation, by their names."""
    if generation is None:
        return {}
    parts = sorted(generation.manifest.segments, key=lambda part: part.distractors)
    segments = [*generation.assets.segments, *generation.contents.distractors.segments]
    return {part.name: segment for part, segment in zip(parts, segments, strict=True)}


def asked_of(
    delta: Delta, around: Sequence[Probe], nprobe: int, depths: Depths, where: Mapping[str, str]
) -> list[Asked]:
    """Queries in their cells and in those `around` them, with what is in the delta."""
    probes = [probe.of_nearest(nprobe) for probe in around]
    if where:
        hits, others = delta.nearest(probes, depths.matches, where), delta.nearest(around, depths.compared, {})
    elif any(probe is not wider for probe, wider in zip(probes, around, strict=True)):
        others, hits = delta.nearest_inside(around, depths.compared, probes, depths.matches)
    else:
        hits = others = delta.nearest(probes, depths.compared, {})
    asked = zip(probes, around, hits, others, strict=True)
    return [Asked(*prepared, by_metadata=bool(where)) for prepared in asked]


def evidence_of(
    generation: Generation, asked: Asked, near: Near, k: int, around: Surroundings | None, unsearched: float
) -> Evidence:
    """What the verdict of a search rests on: what it found, of which the first `k` matches are the answer's, and the
    background around the query, where there is one.

    Args:
        unsearched: the share (0..1) of the cells that were not searched.
    """
    matches, others, distractors, nearest_distractor = near
    distances, manifest = matches.distances, generation.manifest
    first = distances[0] if distances else math.inf
    return Evidence(
        distances=distances[:k],
        cohort=cohort(distractors, _compared(matches.hits, others) if asked.by_metadata else others.distances),
        nearest_distractor=nearest_distractor,
        assets=manifest.assets + len(generation.delta),
        nprobe=asked.probe.nprobe,
        crowded=around is not None and around.crowded,
        hidden=around is not None and around.hide(first, generation.exact),
        calibration=manifest.calibration,
        threshold=manifest.threshold,
        reranked=manifest.features,
        unsearched=unsearched,
        by_metadata=asked.by_metadata,
    )


def _compared(hits: list[Hit], others: Ranked) -> list[float]:
    """The distances of the assets around a query, ascending, of which :func:`cohort` leaves out the first. The first of
    some hits, which may be versions of one picture too, are left out here wherever they are."""
    matches = {hit.asset_id for hit in hits[:LEFT_OUT]}
    rest = [hit.distance for hit in others.hits[LEFT_OUT:] if hit.asset_id not in matches]
    return [*others.distances[:LEFT_OUT], *rest]


def _distance(hit: Hit) -> float:
    return hit.distance


def supposed_hits(codec: Codec, probe: Probe, entries: Mapping[str, Entry]) -> Iterator[Hit]:
    """Entries that are in no index, as far as a search would meet them."""
    for asset_id, entry in entries.items():
        found = search(codec.filled(entry.code[None]), probe, 1)
        named = Change("", asset_id, entry.code, {})
        yield from (Hit(named, distance, entry.feature) for _, distance in found)


def matches_of(hits: list[Hit], evidence: Evidence) -> list[Match]:
    scores: Sequence[float | None] = evidence.scores or [None] * len(hits)
    probable = evidence.probabilities(evidence.scores) if evidence.scores else [None] * len(hits)
    return list(map(_match, hits, scores, probable))


def _match(hit: Hit, score: float | None, probability: float | None) -> Match:
    name, meta = name_in(hit.meta)
    return Match(
        asset_id=hit.asset_id, name=name, distance=hit.distance, meta=meta, score=score, probability=probability
    )
