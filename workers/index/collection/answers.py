"""What is asked of a collection, and the answers that its generation and its delta give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.results import Match
from workers.index.codec.codec import Features
from workers.index.codec.probes import Probe
from workers.index.collection.finder import Finder, Sought
from workers.index.collection.generation import Asked, Generation, evidence_of, matches_of, supposed_hits
from workers.index.collection.reranking import RERANKED
from workers.index.collection.segment import Entry, Hit
from workers.index.verdicts.judge import Evidence
from workers.index.verdicts.score import COHORT, LEFT_OUT

__all__ = ["Answer", "Query", "Snapshot", "answers_of"]


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

    def depth(self, generation: Generation) -> int:
        """How many entries have to be found for an answer and its evidence."""
        compared = LEFT_OUT * (2 if self.where else 1) + COHORT + 1
        return max(self.k, compared, RERANKED if generation.manifest.stored else 0) + len(self.without)


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


def answers_of(query: Query, depth: int, snapshot: Snapshot, finder: Finder) -> list[Answer]:
    """The answer for each feature of a query.

    Args:
        depth: see :meth:`Query.depth`.
    """
    generation, where = snapshot.generation, query.where
    finder.prepare(sought for asked in snapshot.asked for sought in generation.sought(asked, depth, where))

    any_wanted = not query.without and not snapshot.changes

    def wanted(hit: Hit) -> bool:
        if any_wanted:  # without reading whose it is
            return True
        asset_id = hit.asset_id
        return asset_id not in query.without and not generation.delta.supersedes(asset_id, snapshot.changes)

    def nearest(feature: Features, probe: Probe, of_delta: list[Hit], where: Mapping[str, str]) -> list[Hit]:
        hits = [hit for hit in of_delta if hit.asset_id not in query.without]
        hits += supposed_hits(generation.codec, probe, query.supposed)
        hits += finder.best(Sought(probe, depth, where), wanted)
        return generation.ranked(feature, hits)

    background = generation.background
    around = background.around(query.features) if background else [None] * len(query.features)
    answers = []
    for feature, asked, surroundings in zip(query.features, snapshot.asked, around, strict=True):
        hits = nearest(feature, asked.probe, asked.hits, where)
        others = hits if asked.others is asked.hits else nearest(feature, asked.around, asked.others, {})
        evidence = evidence_of(generation, finder, asked, feature, (hits, others), query.k, surroundings)
        matches = matches_of(hits[: query.k], evidence)
        answers.append(Answer(matches, generation.manifest.generation, snapshot.entry, evidence))
    return answers
