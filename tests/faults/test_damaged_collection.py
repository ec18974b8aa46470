"""What is damaged, missing or does not fit on the disk is refused by name; what answers, answers rightly."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.errors import CollectionBusy, CorruptSegment, DiskUnavailable, NotReady, StorageUnavailable
from tasks.ledger.ledger import Ledger
from tasks.messages import CompactRequest
from tasks.names import sha256_hex
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.collections import EXTRACTOR, Place, add, found, unit_vectors
from tests.running import Runs
from workers.delivery.job import Kind
from workers.handlers.index_jobs import IndexHandlers
from workers.handlers.pixel_budget import PixelBudget
from workers.handlers.resources import Resources
from workers.images import Limits
from workers.index.collection.collection import Collection
from workers.index.collection.files import CollectionStore
from workers.index.collection.manifest import Pointer
from workers.index.collection.open_collections import OpenCollections
from workers.index.collection.pinned import publish
from workers.index.maintenance import upkeep
from workers.index.maintenance.verify import verify_collection

NEW = unit_vectors(100, 1)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def truncated(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


@pytest.mark.parametrize("damage", [flipped, truncated])
@pytest.mark.parametrize("part", ["index", "assets", "meta", "codec", "manifest", "current"])
def test_a_damaged_file_is_refused_by_name_and_the_open_generation_goes_on(
    place: Place, part: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    collection = place.open()
    add(collection, "new-0", NEW[0])
    manifest = place.compact()
    digest = manifest.codec if part == "codec" else getattr(manifest.segments[-1], part, None)
    (newest,) = (k for k in place.store.list_keys(Bucket.COLLECTIONS, f"{place.name}/generations/") if "00002-" in k)
    key = {"manifest": newest, "current": f"{place.name}/current.json"}.get(part, f"{place.name}/objects/{digest}")
    data = place.store.get(Bucket.COLLECTIONS, key, 1 << 30)
    place.store.put(Bucket.COLLECTIONS, key, damage(data), "application/octet-stream")
    elsewhere = Place(place.name, place.settings, tmp_path / "another machine's cache")
    with pytest.raises(CorruptSegment, match=digest or part):
        elsewhere.open()
    elsewhere.close()
    if part != "codec":  # which generations share, and of which this process holds a good copy
        with pytest.raises(CorruptSegment):
            collection.follow()
    assert found(collection, NEW[0], k=1) == ["new-0"]


def test_a_damaged_copy_in_the_cache_is_fetched_again(place: Place) -> None:
    digest = place.files.current().segments[0].index
    place.open()
    (place.cache / digest).write_bytes(flipped((place.cache / digest).read_bytes()))
    assert found(place.open(), unit_vectors(1, 0)[0], k=1) == ["old-0"]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond a kilobyte, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_a_compaction_and_an_opening_and_nothing_else(place: Place, tmp_path: Path) -> None:
    collection = place.open()
    for i in range(100):
        add(collection, f"new-{i}", NEW[i])
    with full_disk(), pytest.raises(DiskUnavailable, match=r"(?i)free some space"):
        place.compact()
    assert found(collection, NEW[0], k=1) == ["new-0"]
    elsewhere = Place(place.name, place.settings, tmp_path / "another cache")
    with full_disk(), pytest.raises(DiskUnavailable, match=r"(?i)free some space"):
        elsewhere.open()
    assert place.compact().generation == 2
    assert found(elsewhere.open(), NEW[0], k=1) == ["new-0"]
    elsewhere.close()


def test_a_missing_bucket_is_named_and_the_open_generation_goes_on(place: Place, settings: Settings) -> None:
    collection = place.open()
    store = ObjectStore.connect(settings.model_copy(update={"bucket_collections": "nowhere"}))
    with pytest.raises(StorageUnavailable, match="bucket"):
        Collection(CollectionStore(store, place.name, place.cache), place.journal, EXTRACTOR)
    assert found(collection, NEW[0])


def test_a_compaction_that_dies_between_its_writes_leaves_the_old_generation_in_force(place: Place) -> None:
    collection = place.open()
    add(collection, "new-0", NEW[0])
    manifest = place.files.current()
    half = upkeep.next_generation(place.files, manifest, segments=manifest.segments, journal_entry="0-0")
    publish(place.files, place.journal, half)  # as if compaction had died before the journal heard of it
    assert place.compact().generation == half.generation + 1
    assert collection.follow()
    assert found(collection, NEW[0], k=1) == ["new-0"]


def test_a_damaged_manifest_of_an_old_generation_does_not_keep_the_next_one_from_coming(place: Place) -> None:
    (key,) = place.store.list_keys(Bucket.COLLECTIONS, f"{place.name}/generations/")
    collection = place.open()
    for i in range(2):
        add(collection, f"new-{i}", NEW[i])
        place.compact()
        place.store.put(Bucket.COLLECTIONS, key, b"{}", "application/json")
    assert collection.follow()
    assert (collection.manifest.generation, len(collection)) == (3, 502)


@pytest.mark.parametrize("within", ["manifest", "segment"])
def test_a_manifest_of_a_newer_version_is_called_that_and_jobs_are_left_to_workers_of_it(
    place: Place, within: str
) -> None:
    collection = place.open()
    document = json.loads(place.files.current().model_dump_json()) | {"generation": 2}
    (document if within == "manifest" else document["segments"][0])["later"] = 1
    data = json.dumps(document).encode()
    pointer = Pointer(generation=2, sha256=sha256_hex(data))
    place.journal.note_manifest(pointer, place.files.pointer())
    for key, content in (
        (f"generations/00000002-{pointer.sha256}.json", data),
        ("current.json", pointer.model_dump_json().encode()),
    ):
        place.store.put(Bucket.COLLECTIONS, f"{place.name}/{key}", content, "application/json")
    for call in (place.open, place.compact, collection.follow):
        with pytest.raises(NotReady, match="newer version: upgrade") as refused:
            call()
        assert refused.value.retryable
    assert found(collection, NEW[0])


def test_what_a_killed_compaction_left_behind_is_cleared_away(place: Place) -> None:
    place.files.workspace.mkdir(parents=True)
    (place.files.workspace / "index").write_bytes(b"half a file")
    add(place.open(), "new-0", NEW[0])
    place.compact()
    assert not place.files.workspace.exists()


@pytest.mark.parametrize("generation", [1, 2])
def test_verification_reads_the_store_and_not_this_machines_copies(place: Place, generation: int) -> None:
    collection = place.open()
    add(collection, "new-0", NEW[0])
    place.compact()
    collection.follow()
    assert verify_collection(place.files, place.journal, collection, sample=10).share == 1
    digest = place.files.generation(generation).segments[0].assets
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/objects/{digest}", b"", "application/octet-stream")
    with pytest.raises(CorruptSegment, match=digest):
        verify_collection(place.files, place.journal, collection, sample=10)
    place.store.delete(Bucket.COLLECTIONS, f"{place.name}/objects/{digest}")
    with pytest.raises(CorruptSegment, match=digest):
        verify_collection(place.files, place.journal, collection, sample=10)


def test_a_rollback_to_files_that_are_gone_is_refused_and_the_generation_in_force_stays(
    place: Place, tmp_path: Path
) -> None:
    add(place.open(), "new-0", NEW[0])
    place.compact()
    digest = place.files.generation(1).segments[0].index
    place.store.delete(Bucket.COLLECTIONS, f"{place.name}/objects/{digest}")
    elsewhere = Place(place.name, place.settings, tmp_path / "another machine's cache")
    with pytest.raises(CorruptSegment, match=digest):
        elsewhere.rollback(1)
    assert elsewhere.files.current().generation == 2
    elsewhere.close()


def test_an_object_that_was_cut_short_is_sent_again(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"whole")
    digest = place.files.upload(tmp_path / "file")
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/objects/{digest}", b"who", "application/octet-stream")
    place.files.upload(tmp_path / "file")
    place.files.check(digest)


def test_a_compaction_without_room_ends_as_failed_and_keeps_no_thread(place: Place, ledger: Ledger) -> None:
    collection = place.open()
    for i in range(100):
        add(collection, f"new-{i}", NEW[i])
    collections = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)
    resources = Resources(place.store, collections, None, EXTRACTOR, 8, Limits(1, 1), PixelBudget(1), PixelBudget(1))  # type: ignore[arg-type]
    handlers = IndexHandlers(resources)
    request = CompactRequest(collection=place.name, nonce="1")
    ledger.submit([request])
    kind = Kind(CompactRequest, handlers.compact)
    runner = Runs(place.settings, ledger, place.store).runner
    with full_disk():
        assert runner.run(kind, request.job_id, request.model_dump(mode="json")) == f"failed {DiskUnavailable.code}"
    assert ledger.submit([request]) == [True]  # asked for again
    with collections.write_lock(place.name):
        assert runner.run(kind, request.job_id, request.model_dump(mode="json")) == f"failed {CollectionBusy.code}"
    ledger.submit([request])
    assert runner.run(kind, request.job_id, request.model_dump(mode="json")) == "compacted"
    assert place.files.current().generation == 2
