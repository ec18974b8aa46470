"""Jobs of senders that are not our producer: any id, the least that a message can hold, and what 0.1.0 left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from producer import Producer
from tasks.app import Sender, create_app
from tasks.connection import connect_redis
from tasks.errors import BadInput, DigestMismatch, InvalidRequest, ObjectMissing, TooLarge
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source, validated
from tasks.names import QUEUE_ACTIVATE, QUEUE_QUERY, TASK_ACTIVATE, TASK_QUERY, result_key, sha256_hex
from tasks.results import ActivationResult, FailureResult, QueryResult, Result
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.buckets import made_bucket
from tests.conftest import forget_jobs
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for

INBOX = "test-inbox"


@pytest.fixture(scope="module", autouse=True)
def worker(
    shared_settings: Settings, stack_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """One that may read from the inbox."""
    forget_jobs(shared_settings)
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    worker = WorkerProcess(
        stack_environment | {"AII_SOURCE_BUCKETS": f"other,{INBOX}"}, shared_settings, log, "query,activate"
    )
    yield worker.wait_until_ready()
    worker.kill()


@pytest.fixture
def inbox(settings: Settings, stack_environment: dict[str, str]) -> S3Store:
    return made_bucket(settings, INBOX)


def push(settings: Settings, queue: str, task: str, request: Any, job_id: str | None) -> None:
    """Write the least that a message holds."""
    named = {"id": job_id} if job_id else {}
    message = {"headers": {"task": task, **named}, "body": json.dumps([[request], {}, {}])}
    with connect_redis(settings) as client:
        client.lpush(queue, json.dumps(message))


def end_of(producer: Producer, job_id: str) -> Result:
    def closed() -> bool:
        state = producer.ledger.states([job_id])[0]
        return state is not None and state.closed

    wait_for(closed, "the job does not end")
    return producer.result(job_id)


def uploaded(store: ObjectStore, data: bytes, bucket: Bucket = Bucket.ORIGINALS) -> dict[str, str]:
    store.put(bucket, sha256_hex(data), data, "image/jpeg")
    return {"sha256": sha256_hex(data)}


@pytest.mark.parametrize(
    "job_id",
    ["d96266ec-e106-4764-847c-a6744c266297", "order-17_B", "Auftrag 17/ä", "469ac71c1b114a64938760ae76249a46"],
)
def test_a_message_of_a_job_that_the_ledger_does_not_know_is_run_whatever_its_id(
    producer: Producer, store: ObjectStore, settings: Settings, job_id: str
) -> None:
    image = crops(1, 96)[0] + job_id.encode()
    push(settings, QUEUE_ACTIVATE, TASK_ACTIVATE, {"collection": "starter", "source": uploaded(store, image)}, job_id)
    known = job_id if job_id.isascii() else sha256_hex(job_id.encode())[:32]
    result = end_of(producer, known)
    assert isinstance(result, ActivationResult)
    assert (result.job_id, result.asset_id) == (known, sha256_hex(image))
    assert producer.ledger.get(known).state is JobState.DONE
    producer.protected_image(result)


def test_a_message_without_an_id_is_the_job_that_the_producer_would_have_made(
    producer: Producer, store: ObjectStore, settings: Settings
) -> None:
    image = crops(2, 96)[1] + b"no id"
    request = {"collection": "starter", "source": uploaded(store, image), "asset_id": "no-id"}
    push(settings, QUEUE_ACTIVATE, TASK_ACTIVATE, request, None)
    job_id = validated(ActivateRequest, request).job_id
    assert end_of(producer, job_id).status != "failed"
    job = producer.activate(image, asset_id="no-id")
    assert (job.job_id, job.new) == (job_id, False)


def test_a_query_of_another_sender_needs_no_nonce(producer: Producer, store: ObjectStore, settings: Settings) -> None:
    source = uploaded(store, crops(1)[0], Bucket.QUERIES)
    push(settings, QUEUE_QUERY, TASK_QUERY, {"collection": "starter", "source": source}, "a-query")
    assert isinstance(end_of(producer, "a-query"), QueryResult)


def test_a_request_that_cannot_be_used_ends_with_a_document_under_the_senders_id(
    producer: Producer, settings: Settings
) -> None:
    push(settings, QUEUE_ACTIVATE, TASK_ACTIVATE, {"collection": "starter", "source": 5}, "bad-1")
    result = end_of(producer, "bad-1")
    assert isinstance(result, FailureResult)
    assert result.code == "invalid_request"


def test_a_message_does_not_change_what_a_known_job_is(
    producer: Producer, store: ObjectStore, settings: Settings
) -> None:
    one, other = (crops(4, 96)[n] + b"known" for n in (2, 3))
    request = validated(ActivateRequest, {"collection": "starter", "source": uploaded(store, one)})
    Ledger.connect(settings).submit([request])
    push(
        settings, QUEUE_ACTIVATE, TASK_ACTIVATE, {"collection": "starter", "source": uploaded(store, other)},
        request.job_id,
    )  # fmt: skip
    result = end_of(producer, request.job_id)
    assert isinstance(result, ActivationResult)
    assert result.source_sha256 == sha256_hex(one)


# ── what 0.1.0 left ──────────────────────────────────────────────────────────────────────────────────────────────────


def earlier(store: ObjectStore, image: bytes, asset_id: str) -> tuple[ActivateRequest, dict[str, Any], str]:
    """A request, as the message of version 0.1.0 and with its id."""
    uploaded(store, image)
    source = Source(sha256=sha256_hex(image), size=len(image))
    request = ActivateRequest(collection="starter", source=source, asset_id=asset_id)
    options = request.options.model_dump(mode="json", exclude={"metadata", "quality", "lossless"})
    fields = ("task", "collection", "source", "asset_id", "meta", "nonce")
    payload = {name: request.model_dump(mode="json")[name] for name in fields} | {"options": options}
    assert request.version_1_id
    return request, payload, request.version_1_id


def test_a_waiting_job_of_0_1_0_runs_under_its_id_and_is_the_same_job_still(
    producer: Producer, store: ObjectStore, settings: Settings, ledger: Ledger
) -> None:
    image = crops(5, 96)[4] + b"old"
    _, payload, job_id = earlier(store, image, "old-1")
    ledger.adopt(job_id, TASK_ACTIVATE, QUEUE_ACTIVATE, payload)
    Sender(create_app(settings), settings).send(job_id, TASK_ACTIVATE, QUEUE_ACTIVATE, payload)
    assert isinstance(end_of(producer, job_id), ActivationResult)
    job = producer.activate(image, asset_id="old-1")
    assert (job.job_id, job.new) == (job_id, False)
    assert job.wait(LIMIT_S).job_id == job_id


def test_a_document_of_0_1_0_is_found_by_the_same_request_when_the_ledger_has_forgotten_it(
    producer: Producer, store: ObjectStore, settings: Settings, ledger: Ledger
) -> None:
    image = crops(6, 96)[5] + b"older"
    _, payload, job_id = earlier(store, image, "old-2")
    ledger.adopt(job_id, TASK_ACTIVATE, QUEUE_ACTIVATE, payload)
    Sender(create_app(settings), settings).send(job_id, TASK_ACTIVATE, QUEUE_ACTIVATE, payload)
    first = end_of(producer, job_id)
    with connect_redis(settings) as client:
        client.delete(f"aii:job:{job_id}")
    job = producer.activate(image, asset_id="old-2")
    assert (job.job_id, job.new) == (job_id, True)
    assert job.wait(LIMIT_S) == first  # taken over, not done again
    assert not store.exists(Bucket.RESULTS, result_key(job_id, 2))


# ── images where they lie ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", ["plain.jpg", "2026/11/img 1.jpg", "ä#%20+?&写.jpg"])
def test_an_image_in_a_bucket_is_named_and_read_by_the_worker(producer: Producer, inbox: S3Store, key: str) -> None:
    image = crops(1, 96)[0] + key.encode()
    inbox.put(key, image)
    result = producer.activate(f"s3://{INBOX}/{key}").wait(LIMIT_S)
    assert isinstance(result, ActivationResult)
    assert (result.source_sha256, result.asset_id) == (sha256_hex(image), sha256_hex(image))
    assert result.name == Path(key).name
    answer = producer.query(f"s3://{INBOX}/{key}").wait(LIMIT_S)
    assert isinstance(answer, QueryResult)
    assert answer.source_sha256 == sha256_hex(image)


def test_no_bucket_is_read_that_the_workers_settings_do_not_name(producer: Producer, settings: Settings) -> None:
    for bucket in (settings.bucket_results, settings.bucket_originals, "elsewhere"):
        with pytest.raises(InvalidRequest, match="AII_SOURCE_BUCKETS"):
            producer.activate(f"s3://{bucket}/a.jpg").wait(LIMIT_S)


def test_an_object_that_is_missing_too_large_or_replaced_is_named(settings: Settings, inbox: S3Store) -> None:
    store = ObjectStore.connect(settings.model_copy(update={"source_buckets": (INBOX,)}))
    etag = inbox.put("a/b.jpg", b"12345")["e_tag"]
    assert store.get_source(INBOX, "a/b.jpg", 5, etag or "") == b"12345"
    with pytest.raises(TooLarge):
        store.get_source(INBOX, "a/b.jpg", 4)
    with pytest.raises(ObjectMissing, match="s3://"):
        store.get_source(INBOX, "a/c.jpg", 4)
    inbox.put("a/b.jpg", b"54321")
    with pytest.raises(DigestMismatch, match="replaced"):
        store.get_source(INBOX, "a/b.jpg", 5, etag or "")


@pytest.mark.parametrize(
    "url", ["s3://", "s3://b", "s3://Bucket/a", "s3://inbox/", "s3://inbox/a/../b", "s3://in_box/a"]
)
def test_an_address_that_names_no_object_is_refused(producer: Producer, url: str) -> None:
    with pytest.raises(BadInput):
        producer.activate(url)


def test_an_idempotency_key_is_one_job(producer: Producer) -> None:
    first = producer.activate(crops(1, 96)[0], asset_id="by-key", idempotency_key="order-17")
    again = producer.activate(crops(1, 96)[0], asset_id="by-key", idempotency_key="order-17", name="other.jpg")
    assert (first.job_id, first.new, again.new) == (again.job_id, True, False)
    assert first.wait(LIMIT_S).job_id == first.job_id
