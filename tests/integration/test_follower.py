"""What a worker does by itself with the collections it has open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.errors import CollectionMissing
from tasks.ledger.keys import INCARNATIONS
from tasks.messages import CompactRequest
from tasks.settings import Settings
from tests.collections import EXTRACTOR, Place, add, found, trained_codec, unit_vectors
from workers.index.collection.follower import Follower
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance import upkeep

NEW = unit_vectors(20, 1)
CODES = trained_codec().encode(NEW)


@dataclass
class Watched:
    """A follower of two collections, by a clock that the test moves."""

    places: tuple[Place, Place]
    compact_after: int = 0
    now_s: float = 0.0
    asked: list[CompactRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        first = self.places[0]
        self.collections = OpenCollections(first.store, first.redis, first.cache, EXTRACTOR)
        for place in self.places:
            self.collections.get(place.name)
        self.follower = Follower(self.collections, self.compact_after, self.asked.append, lambda: self.now_s)
        self.follower.follow_all()

    def generations(self) -> list[int]:
        return [state.generation for state in self.collections.states()]


@pytest.fixture
def places(settings: Settings, tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    both = Place.published(settings, tmp_path / "cache"), Place.published(settings, tmp_path / "cache")
    yield both
    for place in both:
        place.close()


def test_a_generation_that_is_announced_is_followed_at_once(places: tuple[Place, Place]) -> None:
    watched = Watched(places)
    add(places[1].open(), "new", NEW[0])
    places[1].compact()
    watched.follower.follow_all()
    assert watched.generations() == [1, 2]


def watched_until_redis_was_emptied(places: tuple[Place, Place]) -> Watched:
    """Of two collections, the second generations of which were announced by a Redis that has forgotten them."""
    watched = Watched(places)
    for place in places:
        add(place.open(), "new", NEW[0])
        place.compact()
    places[0].redis.flushall()
    return watched


def test_after_redis_was_emptied_every_open_collection_is_looked_up_in_the_store(places: tuple[Place, Place]) -> None:
    watched = watched_until_redis_was_emptied(places)
    watched.follower.follow_all()
    assert watched.generations() == [2, 2]


def test_so_is_one_of_an_earlier_version_some_time_later(places: tuple[Place, Place]) -> None:
    places[0].redis.delete(INCARNATIONS)
    watched = watched_until_redis_was_emptied(places)
    watched.follower.follow_all()
    assert watched.generations() == [1, 1]
    watched.now_s += 31
    watched.follower.follow_all()
    assert watched.generations() == [2, 2]


def test_repair_tells_the_workers(places: tuple[Place, Place]) -> None:
    watched = Watched(places)
    places[0].activated("new", CODES[0])
    places[0].compact()
    places[0].redis.flushall()
    places[0].repair()
    watched.follower.follow_all()
    assert watched.generations() == [2, 1]


def test_a_quiet_worker_reads_the_journal_before_anybody_asks(places: tuple[Place, Place]) -> None:
    watched = Watched(places)
    places[0].journal.add("new", CODES[0], {})
    assert watched.collections.get(places[0].name).changes == 0
    watched.follower.follow_all()
    assert [state.journal for state in watched.collections.states()] == [1, 0]


def test_changes_of_one_asset_alone_ask_for_a_compaction_once_a_generation(places: tuple[Place, Place]) -> None:
    watched = Watched(places, compact_after=10)
    for i in range(12):
        places[0].journal.add("the-same", CODES[i], {})
    for _ in range(3):
        watched.follower.follow_all()
    (asked,) = watched.asked
    assert asked.collection == places[0].name
    watched.now_s += 601  # it failed, it seems
    watched.follower.follow_all()
    assert [again.job_id for again in watched.asked] == [asked.job_id] * 2
    places[0].compact()
    watched.follower.follow_all()
    assert (watched.generations(), len(watched.asked)) == ([2, 1], 2)


def test_a_deleted_collection_is_closed(places: tuple[Place, Place]) -> None:
    watched = Watched(places)
    upkeep.delete(places[0].files, places[0].journal, lambda: None)
    watched.follower.follow_all()
    assert watched.generations() == [1]
    with pytest.raises(CollectionMissing):
        watched.collections.get(places[0].name)
    assert found(watched.collections.get(places[1].name), unit_vectors(1, 0)[0], k=1) == ["old-0"]
