"""What was registered outlives Redis: repair, and what else comes after it was emptied, or after S3 was set back."""

from __future__ import annotations

import os
import random
import threading
import uuid

import pytest

from tasks.documents import read_document, read_result
from tasks.errors import CollectionBusy, Conflict, CorruptSegment, DiskUnavailable, ExtractorMismatch
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source
from tasks.names import result_key
from tasks.results import ActivationResult, FailureResult
from tasks.storage import Bucket
from tests.collections import EXTRACTOR, Place, add, found, trained_codec, unit_vectors
from tests.forked import forkserver
from tests.running import Runs
from workers.delivery.job import Kind, Running
from workers.index.collection.journal import next_entry
from workers.index.collection.open_collections import OpenCollections
from workers.index.collection.segment import Entry
from workers.index.maintenance import upkeep
from workers.index.maintenance.activations import activations_of

NEW = unit_vectors(200, 1)
CODES = trained_codec().encode(NEW)


def test_a_failure_never_takes_the_place_of_a_good_document(place: Place, ledger: Ledger) -> None:
    foreign = EXTRACTOR.model_copy(update={"sha256": "f" * 64})
    collections = OpenCollections(place.store, place.redis, place.cache, foreign)
    request = ActivateRequest(collection=place.name, asset_id="mine", source=Source(sha256="a" * 64, size=1))
    place.document("mine", CODES[0], "5-0", job_id=request.job_id)
    before = read_document(place.store, request.job_id, 1)

    def work(request: ActivateRequest, _: Running) -> ActivationResult:
        collections.get(request.collection)
        raise AssertionError("a foreign extractor was accepted")

    def restore(result: ActivationResult) -> None:
        collections.get(result.collection)

    runner = Runs(place.settings, ledger, place.store).runner
    place.redis.flushall()
    ledger.submit([request])
    kind = Kind(ActivateRequest, work, restore)
    ended = runner.run(kind, request.job_id, request.model_dump(mode="json"))
    assert ended == f"failed {ExtractorMismatch.code}"
    assert ledger.get(request.job_id).state is JobState.FAILED
    assert read_document(place.store, request.job_id, 1) == before
    assert isinstance(read_result(place.store, request.job_id), FailureResult)
    assert place.repair().registered == 1


def test_repair_brings_back_codes_and_metadata_and_nothing_a_second_time(place: Place) -> None:
    for i in range(20):
        place.activated(f"new-{i}", CODES[i], kind="photo")
    place.compact()
    place.activated("new-0", CODES[0], kind="drawing")  # the same code, other metadata
    place.activated("new-20", CODES[20])
    place.remove("new-1")
    place.redis.flushall()
    repaired = place.repair()
    assert (repaired.assets, repaired.registered, repaired.removed) == (21, 2, 1)
    collection = place.open()
    assert found(collection, NEW[0], k=1, kind="drawing") == ["new-0"]
    assert found(collection, NEW[20], k=1) == ["new-20"]
    assert "new-1" not in found(collection, NEW[1], k=1_000)
    again = place.repair()
    assert (again.registered, again.removed) == (0, 0)


def test_repair_leaves_alone_what_changed_while_documents_were_read(place: Place) -> None:
    for i in range(3):
        place.activated(f"new-{i}", CODES[i])
    place.redis.flushall()
    changed = threading.Event()

    def change(*_: int) -> None:
        if not changed.is_set():
            changed.set()
            place.journal.add("new-0", CODES[100], {})
            place.remove("new-1")

    repaired = place.repair(change)
    collection = place.open()
    assert repaired.registered == 1  # new-2
    assert found(collection, NEW[100], k=1) == ["new-0"]
    assert "new-1" not in found(collection, NEW[1], k=1_000)
    assert found(collection, NEW[2], k=1) == ["new-2"]


def test_documents_that_cannot_be_read_are_counted_and_foreign_codes_left_out(place: Place) -> None:
    before = place.repair().unreadable
    place.document("short", CODES[0][:-1], "5-0")
    place.store.put(Bucket.RESULTS, f"{place.name}.json", b"{", "application/json")
    repaired = place.repair()
    place.store.delete(Bucket.RESULTS, f"{place.name}.json")
    assert (repaired.assets, repaired.registered, repaired.unreadable) == (0, 0, before + 1)


def test_a_damaged_note_of_a_removal_is_named(place: Place) -> None:
    place.activated("new-0", CODES[0])
    place.remove("new-0")
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/removed/new-0.json", b"{}", "application/json")
    with pytest.raises(CorruptSegment, match=r"removed/new-0\.json"):
        place.repair()


def test_a_removal_that_was_only_begun_is_finished_by_repair(place: Place) -> None:
    entry = place.activated("new-0", CODES[0])
    place.files.removals.note("new-0", next_entry(entry))  # and then the process died
    assert place.repair().removed == 1
    assert "new-0" not in found(place.open(), NEW[0], k=1_000)


def test_entries_of_a_redis_whose_clock_is_behind_are_read_all_the_same(place: Place) -> None:
    ahead = "99999999999999-0"
    place.journal.continue_after(ahead)
    collection = place.open()
    add(collection, "new-0", NEW[0])
    place.compact()
    place.redis.flushall()
    place.repair()
    add(collection, "new-1", NEW[1])
    for reader in (collection, place.open()):
        assert found(reader, NEW[1], k=1) == ["new-1"]


def test_a_rollback_past_what_redis_lost_is_refused(place: Place) -> None:
    for i in range(2):
        place.activated(f"new-{i}", CODES[i])
        place.compact()
    place.redis.flushall()
    with pytest.raises(Conflict, match="repair"):
        place.rollback(2)
    place.repair()
    with pytest.raises(Conflict, match="does not reach back"):
        place.rollback(2)
    assert place.files.current().generation == 3


def test_a_compaction_after_redis_was_emptied_does_not_hide_that(place: Place) -> None:
    place.activated("new-0", CODES[0])
    place.compact()
    place.redis.flushall()
    place.journal.add("new-1", CODES[1], {})
    assert place.compact().generation == 3
    with pytest.raises(Conflict, match="does not reach back"):
        place.rollback(1)


def test_repair_cures_a_journal_that_was_cut_beyond_the_current_generation(place: Place) -> None:
    entries = [place.activated(f"new-{i}", CODES[i]) for i in range(4)]
    place.journal.announce(7, next_entry(entries[-1]), covered="0-0")  # S3 was set back from a later generation
    collection = place.open()
    with pytest.raises(CorruptSegment, match="repair"):
        found(collection, NEW[0])
    with pytest.raises(CorruptSegment, match="repair"):
        place.compact()
    assert place.repair().registered == 4
    for i in range(4):
        assert found(collection, NEW[i], k=1) == [f"new-{i}"]
    assert place.compact().generation == 2


def test_a_collection_that_was_deleted_and_built_anew_knows_nothing_of_the_old_one(place: Place) -> None:
    collection = place.open()
    add(collection, "old", NEW[0])
    upkeep.delete(place.files, place.journal, lambda: None)
    assert not list(place.store.list_keys(Bucket.COLLECTIONS, f"{place.name}/"))
    codec = trained_codec()
    place.journal.add("late", CODES[1], {})  # by a worker that had not noticed
    place.publish(codec, [f"again-{i}" for i in range(200)], CODES)
    assert collection.follow()
    assert found(collection, NEW[0], k=1) == ["again-0"]
    assert {"old", "late"}.isdisjoint(found(collection, NEW[0], k=1_000))
    assert place.changes() == 0


def read_and_stopped(place: Place) -> int:
    """A repair that ends when it has read all documents; returns how many there were."""
    totals = []

    def stop(done: int, total: int) -> None:
        totals.append(total)
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.repair(stop)
    return totals[0]


def test_a_repair_that_was_interrupted_goes_on_with_documents_that_it_has_not_read(place: Place) -> None:
    for i in range(20):
        place.activated(f"new-{i}", CODES[i])
    place.redis.flushall()
    before = read_and_stopped(place)
    place.document("new-20", CODES[20], "5-0")
    totals = [0]
    assert place.repair(lambda _, total: totals.append(total)).registered == 21
    assert 1 <= max(totals) <= before - 19
    assert not list(place.files.reading.iterdir())


def test_a_document_that_is_gone_since_an_interruption_does_not_count(place: Place) -> None:
    place.activated("new-0", CODES[0])
    job_id = uuid.uuid4().hex
    place.document("new-0", CODES[1], place.journal.add("new-0", CODES[1], {}), job_id=job_id)
    place.redis.flushall()
    read_and_stopped(place)
    place.store.delete(Bucket.RESULTS, result_key(job_id))  # S3 was set back
    assert place.repair().registered == 1
    entry = collection_entry(place, "new-0")
    assert entry is not None
    assert entry.code.tobytes() == CODES[0].tobytes()


def read_only(place: Place) -> None:
    """Read what is on record, and leave the file to the next repair."""
    manifest = place.files.current()
    assert manifest.settled is not None
    with activations_of(place.files, manifest, "repair", manifest.settled.before_ms) as documents:
        documents.read(place.store, place.files.removals, lambda _: False, lambda *_: None)


def test_a_removal_whose_note_is_gone_since_an_interruption_is_not_repeated(place: Place) -> None:
    place.remove("old-1")
    read_only(place)
    (note,) = place.store.list_keys(Bucket.COLLECTIONS, f"{place.name}/removed/")
    place.store.delete(Bucket.COLLECTIONS, note)  # S3 was set back
    place.redis.flushall()
    assert place.repair().removed == 0
    assert collection_entry(place, "old-1") is not None


def test_a_document_that_was_away_when_it_was_to_be_read_is_read_when_it_is_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = uuid.uuid4().hex
    key = result_key(job_id)
    place.document("new-0", CODES[0], place.journal.add("new-0", CODES[0], {}), job_id=job_id)
    place.redis.flushall()
    listed, data = list(place.store.pages(Bucket.RESULTS, "")), place.store.get(Bucket.RESULTS, key, 2**20)
    place.store.delete(Bucket.RESULTS, key)
    with monkeypatch.context() as patched:
        patched.setattr(place.store, "pages", lambda *_: iter(listed))
        read_only(place)
    place.store.put(Bucket.RESULTS, key, data, "application/json")
    assert place.repair().registered == 1


def test_stores_and_formats_have_files_of_their_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read_only(place)
    with monkeypatch.context() as patched:
        patched.setattr("workers.index.maintenance.activations._FORMAT", 0)
        read_only(place)
    with monkeypatch.context() as patched:
        patched.setattr(place.store, "_url", "http://staging.example")
        read_only(place)
    assert len(list(place.files.reading.iterdir())) == 3


def test_what_was_read_goes_after_a_week_or_with_the_collection(place: Place) -> None:
    read_only(place)
    (old,) = place.files.reading.iterdir()
    old = old.rename(old.with_name("retrain-0.sqlite"))
    os.utime(old, (0, 0))
    read_only(place)
    assert not old.exists()
    assert list(place.files.reading.iterdir())
    upkeep.delete(place.files, place.journal, lambda: None)
    assert not place.files.reading.exists()


def collection_entry(place: Place, asset_id: str) -> Entry | None:
    collection = place.open()
    collection.catch_up()
    return collection.entry_of(asset_id)


def test_a_file_of_documents_that_was_damaged_is_made_again(place: Place) -> None:
    place.activated("new-0", CODES[0])
    place.redis.flushall()
    read_and_stopped(place)
    (path,) = place.files.reading.iterdir()
    path.write_bytes(b"no database" * 1_000)
    with pytest.raises(DiskUnavailable, match="damaged"):
        place.repair()
    assert place.repair().registered == 1


def test_documents_are_read_by_one_process_at_a_time(place: Place) -> None:
    with activations_of(place.files, place.files.current(), "repair"), pytest.raises(CollectionBusy):
        place.repair(read_all=True)
    assert place.repair().registered == 0


def repair_in_a_process(*place: object) -> None:
    Place(*place).repair()  # type: ignore[arg-type]


def test_a_repair_that_is_killed_at_any_moment_can_be_run_again(place: Place) -> None:
    moments = random.Random(0)
    for i in range(40):
        place.activated(f"new-{i}", CODES[i])
    place.remove("new-0")
    place.redis.flushall()
    for _ in range(4):
        process = forkserver().Process(target=repair_in_a_process, args=(place.name, place.settings, place.cache))
        process.start()
        process.join(moments.uniform(0.0, 0.5))
        process.kill()
        process.join()
    place.repair()
    collection = place.open()
    assert [found(collection, NEW[i], k=1) for i in range(1, 40)] == [[f"new-{i}"] for i in range(1, 40)]
    assert not collection.holds("new-0")
    assert place.changes() == 39
    assert place.repair().registered == 0
