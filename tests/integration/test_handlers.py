"""The handlers of all kinds of jobs, with the real extractor, on the session's Redis and S3."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.connection import connect_redis
from tasks.documents import last_commit, read_result
from tasks.errors import (
    AlreadyProtected,
    AssetConflict,
    Cancelled,
    CollectionMissing,
    ExtractorMismatch,
    LeaseLost,
    TooLarge,
    TruncatedImage,
)
from tasks.kinds import KINDS
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.messages import (
    ActivateRequest,
    ActivationOptions,
    CompactRequest,
    ExtractRequest,
    QueryRequest,
    Request,
    Source,
)
from tasks.names import sha256_hex
from tasks.results import ActivationResult, FailureResult, Result
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.photographs import crops, pixels
from tests.running import Runs
from workers.activation.compose import compose, prepare
from workers.delivery.identity import Identity
from workers.delivery.job import Kind, Publication, Running
from workers.delivery.leases import Leases
from workers.device.device import Device
from workers.extractors.base import Extractor
from workers.extractors.registry import load_extractor
from workers.handlers.image_jobs import ImageHandlers
from workers.handlers.index_jobs import IndexHandlers
from workers.handlers.kinds import kinds_of_jobs
from workers.handlers.pixel_budget import PixelBudget
from workers.handlers.protect import Protector
from workers.handlers.queries import QueryHandlers
from workers.handlers.resources import Resources
from workers.images import Limits, decode, encode
from workers.images.tensors import Floats, to_input
from workers.index.codec.codec import Codec
from workers.index.collection.journal import encode_code
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.build import NewCollection, publish_first
from workers.index.maintenance.purge import purge
from workers.index.maintenance.transfer import export_collection, import_collection
from workers.index.maintenance.upkeep import compact, delete, remove, rollback
from workers.monitoring.stopwatch import Stopwatch

LIMITS = Limits(max_bytes=2**20, max_pixels=10**6)
IMAGES = crops(6)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("compact", torch.device("cpu"), precision="float32")


@pytest.fixture(scope="module")
def device(extractor: Extractor) -> Iterator[Device]:
    device = Device(extractor, batch_images=4)
    device.start()
    yield device
    device.stop()


@pytest.fixture(scope="module")
def codec(extractor: Extractor) -> Codec:
    return Codec.train("IVF4,PQ8x4", unit_vectors(1_000, extractor.dimension))


@pytest.fixture
def resources(
    settings: Settings, store: ObjectStore, extractor: Extractor, device: Device, tmp_path: Path
) -> Iterator[Resources]:
    with connect_redis(settings) as client:
        collections = OpenCollections(store, client, tmp_path / "cache", extractor.identity)
        budget = PixelBudget(LIMITS.max_pixels)
        yield Resources(store, collections, device, extractor.identity, extractor.input_size, LIMITS, budget, budget)


@pytest.fixture
def collection(resources: Resources, codec: Codec) -> str:
    """The name of a new one, with four assets of random codes."""
    name = f"handlers-{uuid.uuid4().hex[:12]}"
    new = NewCollection(name, codec, resources.extractor, 0.5, 0.01)
    codes = codec.encode(unit_vectors(4, resources.extractor.dimension))
    files, journal = resources.collections.files(name), resources.collections.journal(name)
    publish_first(files, journal, new, [f"old-{i}" for i in range(4)], codes, lambda: None)
    return name


def unit_vectors(count: int, dimension: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def uploaded(store: ObjectStore, data: bytes, bucket: Bucket = Bucket.ORIGINALS) -> Source:
    source = Source(sha256=sha256_hex(data), size=len(data))
    store.put(bucket, source.sha256, data, "application/octet-stream")
    return source


def claimed(ledger: Ledger, request: Request) -> Running:
    """The job of a request, accepted and held by a worker."""
    ledger.submit([request])
    ledger.claim(request.job_id, request.queue, "token", "worker")
    leases = Leases(ledger, 20)
    leases.hold(request.job_id, "token")
    return Running(request.job_id, Stopwatch(), leases, Identity("worker", "cpu", {}))


def activation(store: ObjectStore, collection: str, image: bytes, asset_id: str = "mine") -> ActivateRequest:
    return ActivateRequest(
        collection=collection, asset_id=asset_id, source=uploaded(store, image), meta={"kind": "photo"}
    )


def done(resources: Resources, ledger: Ledger, settings: Settings, request: ActivateRequest) -> Result:
    """Submit an activation, let a worker run it, and read its document."""
    ledger.submit([request])
    runner = Runs(settings, ledger, resources.store).runner
    kind = next(kind for kind in kinds_of_jobs(resources, settings) if kind.model is ActivateRequest)
    runner.run(kind, request.job_id, request.model_dump(mode="json"))
    return read_result(resources.store, request.job_id)


def test_every_kind_of_job_has_a_handler(resources: Resources) -> None:
    assert [kind.task for kind in kinds_of_jobs(resources, Settings())] == [kind.task for kind in KINDS]


def test_an_activated_image_is_published_registered_and_found(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str
) -> None:
    store = resources.store
    request = activation(store, collection, IMAGES[0])
    result = done(resources, ledger, settings, request)
    assert isinstance(result, ActivationResult)
    published = store.get(Bucket.PROTECTED, result.protected_key, LIMITS.max_bytes)
    assert sha256_hex(published) == result.protected_sha256
    assert (result.asset_id, result.width, result.height) == ("mine", 128, 128)
    assert set(result.provenance.timings_ms) >= {"fetch", "decode", "optimise", "encode", "upload", "journal", "total"}
    query = QueryRequest(collection=collection, source=uploaded(store, published, Bucket.QUERIES), nonce="1")
    answer = QueryHandlers(resources).query(query, claimed(ledger, query))
    assert (answer.matches[0].asset_id, answer.matches[0].meta) == ("mine", {"kind": "photo"})
    assert answer.journal_entry == result.journal_entry


@pytest.mark.parametrize(
    ("data", "error"), [(IMAGES[0][:500], TruncatedImage), (IMAGES[0] + bytes(LIMITS.max_bytes), TooLarge)]
)
def test_an_image_that_cannot_be_used_registers_and_publishes_nothing(
    resources: Resources, ledger: Ledger, collection: str, data: bytes, error: type[Exception]
) -> None:
    request = activation(resources.store, collection, data)
    with pytest.raises(error):
        ImageHandlers(resources).activate(request, claimed(ledger, request))
    assert resources.collections.get(collection).changes == 0


def test_another_image_under_an_assets_id_is_refused_before_the_work_unless_that_is_said(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str
) -> None:
    done(resources, ledger, settings, activation(resources.store, collection, IMAGES[0]))
    handlers, other = ImageHandlers(resources), activation(resources.store, collection, IMAGES[1])
    running = claimed(ledger, other)
    with pytest.raises(AssetConflict, match="is another image"):
        handlers.activate(other, running)
    assert "decode" not in running.watch.timings_ms()
    ledger.submit([other.model_copy(update={"replace": True})])  # said while the job is running
    assert handlers.activate(other, running).registration.asset_id == "mine"


def test_a_protected_file_is_refused_before_the_work_until_it_is_purged(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str
) -> None:
    result = done(resources, ledger, settings, activation(resources.store, collection, IMAGES[0]))
    assert isinstance(result, ActivationResult)
    published = resources.store.get(Bucket.PROTECTED, result.protected_key, LIMITS.max_bytes)
    again = activation(resources.store, collection, published, "again")
    refused = done(resources, ledger, settings, again)
    assert (refused.status, getattr(refused, "code", "")) == ("failed", AlreadyProtected.code)
    assert "asset 'mine'" in getattr(refused, "message", "")
    files, journal = resources.collections.files(collection), resources.collections.journal(collection)
    remove(files, journal, "mine")
    assert purge(resources.store, files, journal, lambda: None) == 1
    ledger.submit([again])
    ImageHandlers(resources).activate(again, claimed(ledger, again))


def test_a_cancelled_job_publishes_nothing(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str
) -> None:
    request = activation(resources.store, collection, IMAGES[1])
    running = claimed(ledger, request)
    Operations.connect(settings).cancel(request.job_id, resources.store)
    with pytest.raises(Cancelled):
        ImageHandlers(resources).activate(request, running)
    assert resources.collections.get(collection).changes == 0


def test_a_job_that_another_worker_holds_publishes_nothing(
    resources: Resources, ledger: Ledger, collection: str
) -> None:
    request = activation(resources.store, collection, IMAGES[1])
    running = claimed(ledger, request)
    ledger.recovery.requeue(request.job_id, "token")
    with pytest.raises(LeaseLost):
        ImageHandlers(resources).activate(request, running)
    assert resources.collections.get(collection).changes == 0


def test_a_query_of_an_unknown_collection_is_refused(resources: Resources, ledger: Ledger) -> None:
    source = uploaded(resources.store, IMAGES[0], Bucket.QUERIES)
    query = QueryRequest(collection="missing", source=source, nonce="1")
    with pytest.raises(CollectionMissing):
        QueryHandlers(resources).query(query, claimed(ledger, query))


def test_compaction_makes_the_journal_a_new_generation(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str
) -> None:
    request = activation(resources.store, collection, IMAGES[2])
    done(resources, ledger, settings, request)
    compaction = CompactRequest(collection=collection, nonce="1")
    result = IndexHandlers(resources).compact(compaction, claimed(ledger, compaction))
    assert (result.status, result.generation, result.entries) == ("compacted", 2, 5)


def test_features_are_those_of_the_images_and_unreadable_ones_are_named(
    resources: Resources, ledger: Ledger, collection: str
) -> None:
    good = [uploaded(resources.store, image).sha256 for image in IMAGES[3:5]]
    bad, missing = uploaded(resources.store, b"no image").sha256, "0" * 64
    request = ExtractRequest(
        collection=collection, extractor=resources.extractor.sha256, images=[good[0], bad, missing, good[1]]
    )
    result = IndexHandlers(resources).extract(request, claimed(ledger, request))
    assert (result.images, set(result.skipped)) == (good, {bad, missing})
    rows = resources.collections.files(collection).download_features(result.features, resources.extractor.dimension)
    for row, image in zip(rows, IMAGES[3:5], strict=True):
        alone = resources.device.extract(to_input(decode(image, LIMITS).pixels, resources.input_size))
        assert np.allclose(row, alone, atol=1e-4)


def test_features_for_another_extractor_are_refused(resources: Resources, ledger: Ledger, collection: str) -> None:
    request = ExtractRequest(collection=collection, extractor="f" * 64, images=["0" * 64])
    with pytest.raises(ExtractorMismatch):
        IndexHandlers(resources).extract(request, claimed(ledger, request))


# ── a collection that was deleted, and built again ───────────────────────────────────────────────────────────────────


def deleted(resources: Resources, name: str) -> None:
    delete(resources.collections.files(name), resources.collections.journal(name), lambda: None)


def built(resources: Resources, name: str, codec: Codec) -> None:
    """Publish a collection without assets under that name."""
    new = NewCollection(name, codec, resources.extractor, 0.5, 0.01)
    files, journal = resources.collections.files(name), resources.collections.journal(name)
    publish_first(files, journal, new, [], np.empty((0, codec.code_size), dtype=np.uint8), lambda: None)


def registered(resources: Resources, result: Result) -> bool:
    """Whether a collection has an activation's asset, under the code that its document says."""
    assert isinstance(result, ActivationResult)
    collection = resources.collections.get(result.collection)
    collection.follow()
    collection.catch_up()
    entry = collection.entry_of(result.asset_id)
    return entry is not None and encode_code(entry.code) == result.code


def test_an_activation_is_done_again_in_a_collection_that_was_built_anew(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str, codec: Codec
) -> None:
    request = activation(resources.store, collection, IMAGES[0])
    done(resources, ledger, settings, request)
    assert ledger.submit([request]) == [False]
    deleted(resources, collection)
    built(resources, collection, codec)  # the same codec: codes of the former one could be read
    assert ledger.submit([request]) == [True]
    done(resources, ledger, settings, request)  # by a worker that has the former one open: it is put off
    assert registered(resources, done(resources, ledger, settings, request))
    assert last_commit(resources.store, request.job_id) == 2
    assert ledger.submit([request]) == [False]


def test_an_activation_into_a_deleted_collection_fails(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str
) -> None:
    request = activation(resources.store, collection, IMAGES[0])
    done(resources, ledger, settings, request)
    deleted(resources, collection)
    result = done(resources, ledger, settings, request)  # by a worker that has it open
    assert isinstance(result, FailureResult)
    assert result.code == "collection_missing"


def test_a_job_that_runs_while_its_collection_is_built_again_is_registered_in_the_new_one(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str, extractor: Extractor
) -> None:
    request = activation(resources.store, collection, IMAGES[0])
    other = Codec.train("PQ4x8", unit_vectors(1_000, extractor.dimension))
    handlers, rebuilt = ImageHandlers(resources), list[str]()

    def work(request: ActivateRequest, running: Running) -> Publication:
        made = handlers.activate(request, running)
        if not rebuilt:
            deleted(resources, collection)
            built(resources, collection, other)
            rebuilt.append(collection)
        return made

    kind = Kind(ActivateRequest, work, handlers.restore_activation, handlers.record_activation)
    runner = Runs(settings, ledger, resources.store).runner
    ledger.submit([request])
    assert runner.run(kind, request.job_id, request.message()) == "put off not_ready"
    assert runner.run(kind, request.job_id, request.message()) in ("activated", "passive")
    assert registered(resources, read_result(resources.store, request.job_id))


def test_an_asset_that_came_back_with_an_import_is_not_activated_again(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str, tmp_path: Path
) -> None:
    request, file = activation(resources.store, collection, IMAGES[0]), tmp_path / "exported.tar"
    done(resources, ledger, settings, request)
    files, journal = resources.collections.files(collection), resources.collections.journal(collection)
    manifest = compact(files, journal, lambda: None)
    export_collection(resources.store, files, manifest, file, images=False)
    deleted(resources, collection)
    with resources.collections.write_lock(collection) as lock:
        import_collection(resources.store, files, journal, file, lock)
    resources.collections.get(collection).follow()
    assert registered(resources, done(resources, ledger, settings, request))
    assert last_commit(resources.store, request.job_id) == 1
    assert ledger.submit([request]) == [False]


def test_a_rollback_makes_no_activation_run_again(
    resources: Resources, ledger: Ledger, settings: Settings, collection: str
) -> None:
    request = activation(resources.store, collection, IMAGES[0])
    done(resources, ledger, settings, request)
    files, journal = resources.collections.files(collection), resources.collections.journal(collection)
    compact(files, journal, lambda: None)
    rollback(files, journal, 1, lambda: None)
    assert ledger.submit([request]) == [False]


# ── the protector alone ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_protected_file_keeps_the_floor_that_was_asked_for(resources: Resources, codec: Codec) -> None:
    protector = Protector(resources.device, resources.input_size, LIMITS)
    options = ActivationOptions(min_psnr_db=45)
    _, protected = protector.protect(decode(IMAGES[0], LIMITS), options, codec, Stopwatch())
    difference = decode(IMAGES[0], LIMITS).pixels.astype(float) - decode(protected.encoded.data, LIMITS).pixels
    psnr_db = 10 * np.log10(255**2 / np.mean(difference**2)) if difference.any() else np.inf
    assert psnr_db >= 45 or not protected.verified


@pytest.mark.parametrize(("quality", "sampling"), [(90, 0), (95, 2)])
def test_what_compression_takes_from_a_change_is_added_as_if_all_rows_had_been_looked_at(
    resources: Resources, codec: Codec, quality: int, sampling: int
) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels("coffee.png")).save(file, "JPEG", quality=quality, subsampling=sampling)
    original, options = decode(file.getvalue(), LIMITS), ActivationOptions(min_psnr_db=None)
    protector = Protector(resources.device, resources.input_size, LIMITS)
    found, protected = protector.protect(original, options, codec, Stopwatch())
    prepared, start = prepare(original.pixels, resources.input_size, options.alpha), original.pixels.astype(np.float32)

    def published(strength: float) -> tuple[Floats, Floats]:
        """The change that is meant, and the one that is in the file."""
        samples = compose(original.samples, prepared, found.change, strength)
        return samples - start, decode(encode(samples, original).data, LIMITS).pixels - start

    meant, kept = published(1.0)
    expected = min(float((meant**2).sum() / (meant * kept).sum()), 1.2)
    assert expected > 1.03
    ours, theirs = ((change**2).mean() for change in (protected.decoded.pixels - start, published(expected)[1]))
    assert ours == pytest.approx(theirs, rel=0.05)
    assert ours > 1.02 * (kept**2).mean()


def test_the_protector_ends_at_once_when_the_job_is_no_longer_wanted(resources: Resources, codec: Codec) -> None:
    protector = Protector(resources.device, resources.input_size, LIMITS)
    with pytest.raises(LeaseLost):
        protector.protect(decode(IMAGES[0], LIMITS), ActivationOptions(), codec, Stopwatch(), wanted=lambda: False)
