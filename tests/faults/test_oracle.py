"""The oracle sees what it is there to see."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer import Producer
from tasks.connection import RedisClient, connect_redis
from tasks.names import journal_stream, result_key
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.faults.oracle import judge
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S

LIVE = f"{journal_stream('starter')}:live"


@pytest.fixture
def result(shared_worker: WorkerProcess, producer: Producer) -> ActivationResult:
    """Of a job that ended well."""
    done = producer.activate(crops(1)[0], again=True).wait(LIMIT_S)
    assert isinstance(done, ActivationResult)
    return done


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    with connect_redis(settings) as client:
        yield client


@pytest.fixture
def problems(settings: Settings, result: ActivationResult, tmp_path: Path) -> Callable[[], list[str]]:
    def found() -> list[str]:
        verdict = judge(settings, [result.job_id], tmp_path)
        return [*verdict.lost, *verdict.inconsistent]

    return found


def test_a_job_that_ended_well_has_no_problem(problems: Callable[[], list[str]]) -> None:
    assert problems() == []


def test_a_missing_document_is_a_lost_job(
    problems: Callable[[], list[str]], result: ActivationResult, store: ObjectStore
) -> None:
    store.delete(Bucket.RESULTS, result_key(result.job_id))
    assert "with 0 documents" in problems()[0]


def test_another_file_than_the_documents_is_seen(
    problems: Callable[[], list[str]], result: ActivationResult, store: ObjectStore
) -> None:
    store.put(Bucket.PROTECTED, result.protected_key, b"another", "image/jpeg")
    assert "is not what the document" in problems()[0]


def test_a_code_that_another_job_registered_is_seen(
    problems: Callable[[], list[str]], result: ActivationResult, client: RedisClient
) -> None:
    entry, op, _, *others = client.hget(LIVE, result.asset_id).split(" ")
    client.hset(LIVE, result.asset_id, " ".join([entry, op, "AAAAAAAAAAAAAA==", *others]))
    assert "is not that of" in problems()[0]


def test_an_asset_that_the_index_lost_is_seen(
    problems: Callable[[], list[str]], result: ActivationResult, client: RedisClient
) -> None:
    client.hdel(LIVE, result.asset_id)
    assert "neither journal nor segments" in problems()[0]


def test_an_asset_that_was_registered_twice_is_seen(
    problems: Callable[[], list[str]], result: ActivationResult, client: RedisClient
) -> None:
    client.xadd(journal_stream("starter"), {"op": "add", "asset": result.asset_id, "code": result.code, "meta": "{}"})
    assert "was registered 2 times" in problems()[0]


def test_a_document_of_a_failure_of_a_job_that_is_done_is_seen(
    problems: Callable[[], list[str]], result: ActivationResult, store: ObjectStore
) -> None:
    failure = {
        "status": "failed", "task": result.task, "job_id": result.job_id, "code": "poison", "message": "",
        "provenance": json.loads(result.provenance.model_dump_json()),
    }  # fmt: skip
    store.put(Bucket.RESULTS, result_key(result.job_id), json.dumps(failure).encode(), "application/json")
    assert "its document says failed" in problems()[0]
