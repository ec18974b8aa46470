"""One generation of a collection as it is mapped, and what a search of it is made of."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.results import Match
from workers.index.codec.codec import Codec, Features, search
from workers.index.codec.probes import Probe
from workers.index.codec.stored import exact_distances
from workers.index.collection.changes import Change
from workers.index.collection.delta import Delta
from workers.index.collection.finder import Contents, Finder, Sought
from workers.index.collection.journal import name_in
from workers.index.collection.manifest import Manifest, Pointer
from workers.index.collection.reranking import RERANKED, reranked
from workers.index.collection.segment import Entry, Hit, Segment
from workers.index.collection.segments import Segments
from workers.index.collection.translation import Translation
from workers.index.verdicts.background import Background, Surroundings
from workers.index.verdicts.judge import Evidence
from workers.index.verdicts.score import COHORT, LEFT_OUT, cohort

__all__ = ["Asked", "Generation", "asked_of", "evidence_of", "matches_of", "open_in", "supposed_hits"]


@dataclass
class Generation:
    """One generation as it is mapped here, and its delta; `read_up_to` is the last journal entry applied to that."""

    manifest: Manifest
    pointer: Pointer
    codec: Codec
    translation: Translation
    contents: Contents
    background: Background | None
    delta: Delta
    read_up_to: str
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

    def ranked(self, feature: Features, hits: list[Hit]) -> list[Hit]:
        """Hits of a feature (D,), nearest first: by their stored features where there are any."""
        stored = self.manifest.stored
        return reranked(feature, hits, stored) if stored else sorted(hits, key=lambda hit: hit.distance)

    def distractors_near(self, probe: Probe, k: int) -> Sought:
        """What has to be found to know the `k` nearest distractors."""
        return Sought(probe, max(k, RERANKED) if self.manifest.stored else k, distractors=True)

    def distractor_distances(self, feature: Features, probe: Probe, k: int, finder: Finder) -> list[float]:
        """Of the `k` distractors nearest to a feature (D,), ascending."""
        found = finder.find(self.distractors_near(probe, k))
        if (stored := self.manifest.stored) is None:
            distances: list[float] = found[2].tolist()
            return distances
        if not len(found[0]):
            return []
        others = stored.decode(self.contents.distractors.stored(found))
        return sorted(exact_distances(feature, others).tolist())[:k]

    def sought(self, asked: Asked, depth: int, where: Mapping[str, str]) -> Iterator[Sought]:
        """What of the segments an answer needs, if `depth` entries of assets are enough."""
        yield Sought(asked.probe, depth, where)
        yield self.distractors_near(asked.around, COHORT + 1)
        if asked.others is not asked.hits:
            yield Sought(asked.around, depth)
        if asked.probe is not asked.around:
            yield self.distractors_near(asked.probe, 1)

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


def open_in(generation: Generation | None) -> dict[str, Segment]:
    """The segments of a generation, by their names."""
    if generation is None:
        return {}
    parts = sorted(generation.manifest.segments, key=lambda part: part.distractors)
    segments = [*generation.assets.segments, *generation.contents.distractors.segments]
    return {part.name: segment for part, segment in zip(parts, segments, strict=True)}


def asked_of(delta: Delta, around: Sequence[Probe], nprobe: int, k: int, where: Mapping[str, str]) -> list[Asked]:
    """Queries in their cells and in those `around` them, with what is in the delta."""
    probes = [probe.of_nearest(nprobe) for probe in around]
    hits = others = delta.nearest(probes, k, where)
    if where or any(probe is not wider for probe, wider in zip(probes, around, strict=True)):
        others = delta.nearest(around, k, {})
    asked = zip(probes, around, hits, others, strict=True)
    return [Asked(*prepared, by_metadata=bool(where)) for prepared in asked]


def evidence_of(
    generation: Generation,
    finder: Finder,
    asked: Asked,
    feature: Features,
    found: tuple[list[Hit], list[Hit]],
    k: int,
    around: Surroundings | None,
) -> Evidence:
    """What the verdict of a search rests on: all its hits, of which the first `k` are the answer's, those whose
    metadata are any, and the background around the query, where there is one."""
    hits, others = found
    distances, one_search = [hit.distance for hit in hits], asked.probe is asked.around
    around_it = generation.distractor_distances(feature, asked.around, COHORT + 1, finder)
    among = around_it if one_search else generation.distractor_distances(feature, asked.probe, 1, finder)
    manifest, first = generation.manifest, distances[0] if distances else math.inf
    return Evidence(
        distances=distances[:k],
        cohort=cohort(around_it, _compared(hits if asked.by_metadata else [], others)),
        nearest_distractor=among[0] if among else None,
        assets=manifest.assets + len(generation.delta),
        nprobe=asked.probe.nprobe,
        crowded=around is not None and around.crowded,
        hidden=around is not None and around.hide(first, generation.exact),
        calibration=manifest.calibration,
        threshold=manifest.threshold,
        reranked=manifest.features,
        unsearched=finder.unsearched(asked.around),
        by_metadata=asked.by_metadata,
    )


def _compared(hits: list[Hit], others: list[Hit]) -> list[float]:
    """The distances of the assets around a query, ascending, of which :func:`cohort` leaves out the first. The first of
    some hits, which may be versions of one picture too, are left out here wherever they are."""
    matches = {hit.asset_id for hit in hits[:LEFT_OUT]}
    rest = [hit.distance for hit in others[LEFT_OUT:] if not matches or hit.asset_id not in matches]
    return [*(hit.distance for hit in others[:LEFT_OUT]), *rest]


def supposed_hits(codec: Codec, probe: Probe, entries: Mapping[str, Entry]) -> Iterator[Hit]:
    """Entries that are in no index, as far as a search would meet them."""
    for asset_id, entry in entries.items():
        found = search(codec.filled(entry.code[None]), probe, 1)
        named = Change("", asset_id, entry.code, {})
        yield from (Hit(named, distance, entry.feature) for _, distance in found)


def matches_of(hits: list[Hit], evidence: Evidence) -> list[Match]:
    scores: Sequence[float | None] = evidence.scores or [None] * len(hits)
    return [_match(hit, score, evidence) for hit, score in zip(hits, scores, strict=True)]


def _match(hit: Hit, score: float | None, evidence: Evidence) -> Match:
    name, meta = name_in(hit.meta)
    probability = None if score is None else evidence.probability(score)
    return Match(
        asset_id=hit.asset_id, name=name, distance=hit.distance, meta=meta, score=score, probability=probability
    )
