"""A Redis that lost something is noticed, and what S3 has on record is registered again."""

from __future__ import annotations

import pytest

from tasks.names import journal_stream
from tests.collections import EXTRACTOR, Place, found, trained_codec, unit_vectors
from workers.index.collection.collection import Collection
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.continuity import Continuity

NEW = unit_vectors(8, 1)
CODES = trained_codec().encode(NEW)


@pytest.fixture
def collections(place: Place) -> OpenCollections:
    return OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)


@pytest.fixture
def continuity(place: Place, collections: OpenCollections) -> Continuity:
    return Continuity(collections, place.redis, place.store)


@pytest.fixture
def collection(place: Place, collections: OpenCollections) -> Collection:
    return collections.get(place.name)


def test_nothing_is_repaired_while_the_journal_grows_and_is_compacted(
    place: Place, continuity: Continuity, collection: Collection
) -> None:
    for i in range(3):
        place.activated(f"new-{i}", CODES[i])
        collection.catch_up()
        assert continuity.keep(collection) is None
    place.compact()
    collection.follow()
    assert continuity.keep(collection) is None


def test_an_emptied_redis_is_repaired_once(place: Place, continuity: Continuity, collection: Collection) -> None:
    for i in range(4):
        place.activated(f"new-{i}", CODES[i])
    collection.catch_up()
    continuity.keep(collection)
    place.redis.flushdb()
    repaired = continuity.keep(collection)
    assert repaired is not None
    assert repaired.registered == 4
    assert continuity.keep(collection) is None
    assert found(place.open(), NEW[2])[0] == "new-2"


def test_a_redis_that_was_set_back_is_repaired_by_a_worker_that_knows_no_more_than_s3(
    place: Place, continuity: Continuity, collections: OpenCollections
) -> None:
    place.activated("new-0", CODES[0])
    continuity.keep(collections.get(place.name))
    state = f"{journal_stream(place.name)}:state"
    before = place.redis.hgetall(state)
    entry = place.activated("new-1", CODES[1])
    continuity.keep(collections.get(place.name))
    place.redis.hset(state, mapping=before)  # the beat of before
    place.redis.xdel(journal_stream(place.name), entry)
    place.redis.hdel(f"{journal_stream(place.name)}:live", "new-1")
    fresh = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)
    repaired = Continuity(fresh, place.redis, place.store).keep(fresh.get(place.name))
    assert repaired is not None
    assert repaired.registered == 1
    assert found(place.open(), NEW[1])[0] == "new-1"


def test_an_entry_that_a_worker_has_read_and_redis_lost_within_a_second_is_noticed(
    place: Place, continuity: Continuity, collection: Collection
) -> None:
    continuity.keep(collection)
    entry = place.activated("new-0", CODES[0])
    collection.catch_up()
    place.redis.xdel(journal_stream(place.name), entry)
    place.redis.hdel(f"{journal_stream(place.name)}:live", "new-0")
    repaired = continuity.keep(collection)
    assert repaired is not None
    assert repaired.registered == 1
    assert continuity.keep(collection) is None


def test_the_background_thread_survives_a_damaged_note(
    place: Place, continuity: Continuity, collection: Collection
) -> None:
    place.redis.hset(f"{journal_stream(place.name)}:state", mapping={"epoch": "x", "beat": "many"})
    continuity.run_once()
    continuity.run_once()
    assert place.redis.hget(f"{journal_stream(place.name)}:state", "beat") == "1"
