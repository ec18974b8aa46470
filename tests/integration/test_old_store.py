"""A store that version 0.1.0 has written: read as it is, and migrated by the first write."""

from __future__ import annotations

import json
from functools import partial

import pytest

from tasks.assets.protected_digests import ProtectedDigests
from tasks.assets.records import AssetRecord
from tasks.documents import read_result
from tasks.errors import AlreadyProtected, Conflict
from tasks.ledger.keys import INCARNATIONS
from tasks.ledger.ledger import Ledger
from tasks.messages import ActivateRequest, Source
from tasks.names import journal_stream
from tasks.results import ActivationResult
from tasks.storage import Bucket
from tests.collections import EXTRACTOR, Place, trained_codec, unit_vectors
from tests.running import Runs
from tests.stack import aii_here
from workers.delivery.job import Kind, Publication, Running
from workers.handlers.image_jobs import ImageHandlers, registration_of
from workers.handlers.pixel_budget import PixelBudget
from workers.handlers.resources import Resources
from workers.images import Limits
from workers.index.collection.journal import encode_code
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.records import record_old_assets

NEW = unit_vectors(20, 1)
CODES = trained_codec().encode(NEW)
OLD, OTHER = "a" * 64, "b" * 64


def request(place: Place, source: str, asset_id: str = "mine", **more: object) -> ActivateRequest:
    return ActivateRequest(collection=place.name, asset_id=asset_id, source=Source(sha256=source, size=1), **more)  # type: ignore[arg-type]


def old_document(job: ActivateRequest, place: Place, entry: str, number: int) -> bytes:
    """A result document as version 0.1.0 wrote it."""
    key = f"{place.name}/{job.asset_id}.jpg"
    return json.dumps(
        {
            "status": "activated", "task": "aii.activate", "job_id": job.job_id, "collection": place.name,
            "generation": 1, "asset_id": job.asset_id, "source_sha256": job.source.sha256, "protected_key": key,
            "protected_sha256": "d" * 64, "width": 8, "height": 8, "extractor": EXTRACTOR.model_dump(),
            "code": encode_code(CODES[number]), "journal_entry": entry, "meta": {"kind": "photo"},
            "options": {
                "steps": 10, "learning_rate": None, "alpha": 3.0, "attenuation": "jnd", "min_psnr_db": None,
                "robust": False, "strip_metadata": False,
            },
            "quality": {"psnr_db": 40.0, "ssim": 0.99, "linf": 3},
            "verification": {
                "verified": True, "on_code": True, "attempts": 1, "steps": 10, "distance_before": 1.0,
                "distance_after": 0.1, "misfit_before": 1.0, "misfit_after": 0.1,
            },
            "provenance": {"worker": "w", "device": "cpu", "versions": {}, "timings_ms": {}, "finished_at": "then"},
        }
    ).encode()  # fmt: skip


@pytest.fixture
def old(place: Place) -> Place:
    """Two jobs for the asset `mine`, of which the later counts, and one for `gone`, which was removed: as they lie in
    Redis and S3 after version 0.1.0."""
    place.store.delete(Bucket.COLLECTIONS, f"{place.name}/assets-recorded.json")
    place.redis.delete(INCARNATIONS)
    for job, number in ((request(place, OTHER), 0), (request(place, OLD), 1), (request(place, OLD, "gone"), 2)):
        entry = registered(place, job.asset_id, number)
        document = old_document(job, place, entry, number)
        place.store.put(Bucket.RESULTS, f"{job.job_id}.json", document, "application/json")
        done = {"state": "done", "task": job.task, "queue": job.queue, "attempts": 1, "submitted_ms": 1, "seq": 1}
        place.redis.hset(f"aii:job:{job.job_id}", mapping=done)
    entry = str(place.redis.xadd(stream(place), {"op": "remove", "asset": "gone", "code": "", "meta": ""}))
    place.redis.hset(f"{stream(place)}:live", "gone", f"{entry} remove  ")
    note = json.dumps({"journal_entry": entry}).encode()
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/removed/gone.json", note, "application/json")
    return place


def stream(place: Place) -> str:
    return journal_stream(place.name)


def registered(place: Place, asset_id: str, number: int) -> str:
    """Register a code as version 0.1.0 did."""
    change = {"op": "add", "asset": asset_id, "code": encode_code(CODES[number]), "meta": '{"kind": "photo"}'}
    entry = str(place.redis.xadd(stream(place), change))
    text = f"{entry} add {change['code']} {change['meta']}"
    place.redis.hset(f"{stream(place)}:live", asset_id, text)
    return entry


def opened(place: Place) -> OpenCollections:
    return OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)


def test_the_first_write_makes_records_of_the_documents_and_says_which_jobs_are_outdated(
    old: Place, ledger: Ledger
) -> None:
    record_old_assets(opened(old), old.name)
    earlier, later, gone = request(old, OTHER), request(old, OLD), request(old, OLD, "gone")
    record = old.files.assets.newest("mine")
    assert isinstance(record, AssetRecord)
    assert (record.job_id, record.protected_key) == (later.job_id, f"{old.name}/mine.jpg")
    assert ledger.get(earlier.job_id).superseded_by == later.job_id
    assert ledger.get(later.job_id).current
    assert ledger.get(gone.job_id).removed_at is not None
    assert ledger.submit([earlier, later, gone]) == [True, False, True]
    assert old.files.assets.complete()


def test_a_job_is_superseded_by_its_assets_newest_and_that_one_by_none_in_any_order_of_reading(
    old: Place,
) -> None:
    first, twice, third = (request(old, source, "often") for source in ("1" * 64, "2" * 64, "3" * 64))
    for number, job in enumerate((first, twice, third, twice)):
        document = old_document(job, old, registered(old, "often", number), number)
        old.store.put(Bucket.RESULTS, f"{old.name}-{number}.json", document, "application/json")
        old.redis.hset(f"aii:job:{job.job_id}", mapping={"state": "done", "task": job.task, "queue": job.queue})
    record_old_assets(opened(old), old.name)
    marks = [old.redis.hget(f"aii:job:{job.job_id}", "superseded_by") for job in (first, twice, third)]
    assert marks == [twice.job_id, None, twice.job_id]


def test_a_purge_finds_what_version_0_1_0_left_of_superseded_and_removed_assets(
    old: Place, stack_environment: dict[str, str]
) -> None:
    earlier, later, gone = request(old, OTHER), request(old, OLD), request(old, OLD, "gone")
    said = aii_here(stack_environment, "index", "purge", old.name, "--dry-run").stdout
    assert f"superseded  mine  job {earlier.job_id}" in said
    assert f"removed     gone  job {gone.job_id}" in said
    assert later.job_id not in said
    current, obsolete = f"{old.name}/mine.jpg", f"{old.name}/gone.jpg"
    for key in (current, obsolete):
        old.store.put(Bucket.PROTECTED, key, b"x", "image/jpeg")
    done = aii_here(stack_environment, "index", "purge", old.name, "--yes")
    assert "2 earlier states" in done.stdout, done.stderr
    assert [old.store.exists(Bucket.PROTECTED, key) for key in (current, obsolete)] == [True, False]
    for job, left in ((earlier, False), (later, True), (gone, False)):
        assert old.store.exists(Bucket.RESULTS, f"{job.job_id}.json") is left


def test_protected_files_of_before_are_known_by_their_digests(old: Place) -> None:
    digests = ProtectedDigests(old.store)
    old.store.delete(Bucket.PROTECTED, f"digests/{'d' * 64}.json")  # which any other old store has made known
    digests.refuse("d" * 64)
    record_old_assets(opened(old), old.name)
    with pytest.raises(AlreadyProtected, match="protected file of asset"):
        digests.refuse("d" * 64)


@pytest.mark.parametrize("compacted", [False, True])
def test_what_was_registered_before_is_found_and_another_image_under_its_id_is_a_conflict(
    old: Place, ledger: Ledger, compacted: bool
) -> None:
    if compacted:
        old.compact()
    other = request(old, "c" * 64)
    runs = Runs(old.settings, ledger, old.store)
    ledger.submit([other])
    assert runs.runner.run(kind(old), other.job_id, other.model_dump(mode="json")) == f"failed {Conflict.code}"
    answer = old.open().search(NEW[1], 1, 16)
    assert (answer.matches[0].asset_id, answer.matches[0].meta) == ("mine", {"kind": "photo"})
    said = request(old, "c" * 64, replace=True)
    ledger.submit([said])
    assert runs.runner.run(kind(old), said.job_id, said.model_dump(mode="json")) == "activated"
    assert ledger.get(request(old, OLD).job_id).superseded_by == said.job_id


def test_a_document_of_before_is_taken_over_when_redis_was_emptied(old: Place, ledger: Ledger) -> None:
    old.redis.flushall()
    job = request(old, OLD)
    ledger.submit([job])
    runs = Runs(old.settings, ledger, old.store)
    assert runs.runner.run(kind(old), job.job_id, job.model_dump(mode="json")) == "activated"
    assert (
        read_result(old.store, job.job_id).model_dump()["journal_entry"] == runs.seen[0].model_dump()["journal_entry"]
    )
    assert old.open().search(NEW[1], 1, 16).matches[0].asset_id == "mine"


def kind(place: Place) -> Kind[ActivateRequest]:
    """Activation without pixels: everything but the image's change is the real thing."""
    collections, budget = opened(place), PixelBudget(1)
    resources = Resources(place.store, collections, None, EXTRACTOR, 8, Limits(1, 1), budget, budget)  # type: ignore[arg-type]
    handlers = ImageHandlers(resources)

    def work(request: ActivateRequest, running: Running) -> Publication:
        record_old_assets(collections, request.collection)
        result = ActivationResult.model_validate_json(old_document(request, place, "", 3))
        look_up = partial(collections.get(request.collection).look_up, request.asset_id)
        manifest = collections.get(request.collection).manifest
        return Publication(result, registration_of(result, manifest, replace=request.replace), look_up(), look_up)

    return Kind(ActivateRequest, work, handlers.restore_activation, handlers.record_activation)
