"""What is asked of a collection, and the answers that its generation and its delta give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from tasks.results import Match
from workers.index.codec.codec import Features
from workers.index.collection.finder import Finder, Sought
from workers.index.collection.generation import (
    Asked,
    Depths,
    Generation,
    Near,
    Ranked,
    evidence_of,
    matches_of,
    supposed_hits,
)
from workers.index.collection.reranking import RERANKED
from workers.index.collection.segment import Entry, Hit
from workers.index.verdicts.judge import Evidence
from workers.index.verdicts.score import COHORT, LEFT_OUT

__all__ = ["Answer", "Query", "Snapshot", "answers_of"]


# So many of the nearest entries may be hidden or superseded until a deeper search is needed, which other shards are
# asked for by another message.
_SPARE: Final = 5


@dataclass(frozen=True)
class Answer:
    """The assets nearest to a query, nearest first, the state of the index they come from, and what its verdict rests
    on."""

    matches: list[Match]
    generation: int
    journal_entry: str
    evidence: Evidence


@dataclass(frozen=True)
class Query:
    """What is asked of :meth:`Collection.search_many`; `without` the assets that are left out or supposed."""

    features: Features
    k: int
    nprobe: int | None
    where: Mapping[str, str]
    without: frozenset[str]
    supposed: Mapping[str, Entry]

    def depths(self, generation: Generation) -> Depths:
        """How many entries have to be found for an answer and its evidence. Matches come from as many where more than
        their distances decides."""
        reranked = generation.manifest.stored is not None
        compared = LEFT_OUT * (2 if self.where else 1) + COHORT + 1
        most = max(self.k, compared, RERANKED if reranked else 0) + len(self.without)
        fewest = min(most, self.k + len(self.without) + _SPARE)
        return Depths(most if reranked or self.where else fewest, most)


@dataclass(frozen=True)
class Snapshot:
    """A generation, each query prepared for it, and the state of its delta at that moment.

    Attributes:
        changes: how many changes were applied to the delta.
        entry: up to which the journal was read.
    """

    generation: Generation
    asked: list[Asked]
    changes: int
    entry: str


def answers_of(query: Query, depths: Depths, snapshot: Snapshot, finder: Finder) -> list[Answer]:
    """The answer for each feature of a query.

    Args:
        depths: see :meth:`Query.depths`.
    """
    generation, where = snapshot.generation, query.where
    all_needed = [generation.needed(asked, depths, where) for asked in snapshot.asked]
    finder.prepare(chain.from_iterable(all_needed))

    first_change, changes, without = generation.delta.first_change, snapshot.changes, query.without

    def is_wanted(asset_id: str) -> bool:  # asked of each entry of each query: Delta.supersedes, without a call
        return first_change.get(asset_id, changes) >= changes and asset_id not in without

    wanted = is_wanted if without or changes else None  # else no one has to read whose entries they are

    def nearest(feature: Features, of_delta: list[Hit], sought: Sought, named: int) -> Ranked:
        more = [hit for hit in of_delta if hit.asset_id not in without]
        more += supposed_hits(generation.codec, sought.probe, query.supposed)
        return generation.ranked(feature, more, finder.nearest(sought, wanted), None if where else named)

    background = generation.background
    around = background.around(query.features) if background else [None] * len(query.features)
    answers = []
    each = zip(query.features, snapshot.asked, all_needed, around, strict=True)
    for feature, asked, needed, surroundings in each:
        matches = nearest(feature, asked.hits, needed.matches, query.k)
        others = nearest(feature, asked.others, needed.others, 0) if asked.two_searches else matches
        near = Near(matches, others, *generation.distractors(feature, needed, finder))
        unsearched = finder.unsearched(asked.around)
        evidence = evidence_of(generation, asked, near, query.k, surroundings, unsearched)
        hits = matches_of(matches.hits[: query.k], evidence)
        answers.append(Answer(hits, generation.manifest.generation, snapshot.entry, evidence))
    return answers
