"""Who can write to the bucket of collections alone cannot replace what workers serve."""

from __future__ import annotations

import pytest

from tasks.errors import CorruptSegment
from tests.collections import Place, add, found, unit_vectors
from workers.index.collection.manifest import Manifest
from workers.index.maintenance import upkeep
from workers.index.maintenance.repair import repair

NEW = unit_vectors(10, 1)


def forge(place: Place, generation: int) -> Manifest:
    """Write a manifest with a pointer that agrees with it, as a holder of the bucket's keys could."""
    forged = place.files.current().model_copy(update={"generation": generation, "threshold": 1e9})
    place.files.publish(forged)
    return forged


@pytest.mark.parametrize("generation", [1, 2])
def test_a_manifest_that_was_replaced_in_the_store_is_refused(place: Place, generation: int) -> None:
    collection = place.open()
    forge(place, generation)
    with pytest.raises(CorruptSegment, match="replaced it in the store"):
        place.open()
    with pytest.raises(CorruptSegment, match="replaced it in the store"):
        collection.follow()
    add(collection, "new-0", NEW[0])
    assert found(collection, NEW[0], k=1) == ["new-0"]  # what is open goes on answering
    with pytest.raises(CorruptSegment, match="replaced it in the store"):
        place.compact()


def test_where_redis_notes_nothing_the_store_is_believed_and_pinned_by_the_next_generation(place: Place) -> None:
    """As of a collection of version 0.1.0."""
    place.journal.forget_manifests()
    collection = place.open()
    add(collection, "new-0", NEW[0])
    place.compact()
    assert sorted(place.journal.noted_manifests()) == [1, 2]
    assert collection.follow()
    forge(place, 3)
    with pytest.raises(CorruptSegment):
        collection.follow()


def test_a_repair_believes_the_store(place: Place) -> None:
    """Redis was set back to a time before the current generation."""
    before = place.journal.noted_manifests()
    collection = place.open()
    add(collection, "new-0", NEW[0])
    place.compact()
    place.journal.forget_manifests()
    (generation,) = before
    place.redis.hset(f"aii:journal:{place.name}:manifests", str(generation), before[generation])
    with pytest.raises(CorruptSegment, match="aii index repair"):
        place.open()
    repair(place.store, place.files, place.journal, lambda done, total: None)
    assert place.open().manifest.generation == 2


def test_a_rollback_is_noted(place: Place) -> None:
    collection = place.open()
    add(collection, "new-0", NEW[0])
    place.compact()
    upkeep.rollback(place.files, place.journal, 1, lambda: None)
    assert collection.follow()
    assert collection.manifest.generation == 3
