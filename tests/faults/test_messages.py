"""Whatever is put into the queues: no worker stops, no slot is lost, and the next good job is done."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from producer import Producer
from tasks.app import Sender, create_app
from tasks.connection import RedisClient, connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.messages import QueryRequest, Source
from tasks.names import QUEUE_ACTIVATE, QUEUE_INDEX, QUEUE_QUERY, QUEUES, TASK_ACTIVATE, TASK_QUERY
from tasks.results import FailureResult
from tasks.settings import Settings
from tests.odd_messages import good_message, some_odd_elements
from tests.photographs import crops
from tests.stack import WorkerProcess, aii_here
from tests.waiting import LIMIT_S, wait_for

OF_EACH_QUEUE = 120


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    with connect_redis(settings) as client:
        yield client


def drained(client: RedisClient) -> bool:
    return not any(client.llen(queue) for queue in QUEUES)


def does_good_jobs(producer: Producer, worker: WorkerProcess, count: int) -> None:
    """More jobs than the worker has slots, so that a lost one would show."""
    images = crops(count)
    jobs = [producer.activate(image, asset_id=f"a-{uuid.uuid4().hex}") for image in images]
    jobs += [producer.query(image) for image in images[:3]]
    ids = [job.job_id for job in jobs]
    wait_for(lambda: set(producer.ledger.states(ids)) == {JobState.DONE}, "good jobs are not done")
    assert worker.alive()


def test_a_flood_of_odd_elements_stops_no_worker_and_costs_no_slot(
    start_worker: Callable[..., WorkerProcess], producer: Producer, client: RedisClient, settings: Settings
) -> None:
    worker = start_worker(AII_ACTIVATE_THREADS="4", AII_QUERY_THREADS="2")
    for queue in QUEUES:
        client.lpush(queue, *some_odd_elements(queue, OF_EACH_QUEUE))
    wait_for(lambda: drained(client), "the queues are not read to their end")
    does_good_jobs(producer, worker, 6)
    letters = DeadLetters(client)
    assert 2 * OF_EACH_QUEUE < letters.count() <= 1_000
    assert client.hget("aii:counts", "dead") == str(letters.count())
    assert {letter.origin for letter in letters.newest(1_000)} <= {*QUEUES, "ledger"}
    wait_for(lambda: not client.zcard("aii:leases"), "a job is held for ever")


def test_a_queue_that_is_no_list_is_renamed_and_keeps_no_message_of_another_queue_waiting(
    shared_worker: WorkerProcess, producer: Producer, client: RedisClient
) -> None:
    client.set("activate.5", "odd")
    client.hset("query\x06\x163", "odd", "1")
    asides = "aii:aside:activate.5", "aii:aside:query\x06\x163"
    wait_for(lambda: client.exists(*asides) == 2, "they are not renamed")  # until then a producer cannot send either
    does_good_jobs(producer, shared_worker, 2)
    assert client.get(asides[0]) == "odd"
    assert client.hgetall(asides[1]) == {"odd": "1"}
    reasons = [letter.reason for letter in DeadLetters(client).newest(9)]
    assert sum("was no list" in reason for reason in reasons) == len(reasons) == 2


def message(job_id: Any, task: str = TASK_ACTIVATE, **headers: Any) -> dict[str, Any]:
    made = good_message(task, QUEUE_ACTIVATE, job_id, {"task": task})
    made["headers"] |= headers
    return made


def test_messages_that_stopped_workers_end_with_a_document_or_as_dead_letters(
    start_worker: Callable[..., WorkerProcess], producer: Producer, client: RedisClient, ledger: Ledger
) -> None:
    worker = start_worker(AII_ACTIVATE_THREADS="2")
    ids = [uuid.uuid4().hex for _ in range(4)]
    named = [
        message(ids[0]) | {"body": 5},
        message(ids[1]) | {"body": "no base64!"},
        message(ids[2], timelimit=None, eta="tomorrow"),
        message(ids[3], task="aii.other"),
    ]
    nameless = [message([ids[0]]), message({"a": 1}), 7, [1, 2], None]
    others = [message(uuid.uuid4().hex, task="celery.ping") for _ in range(16)]
    client.lpush(QUEUE_ACTIVATE, *map(json.dumps, [*named, *nameless, *others]))
    client.lpush(QUEUE_ACTIVATE, b"\xff\xfe no JSON", b"")
    does_good_jobs(producer, worker, 3)
    for job_id in ids:
        wait_for(lambda job=job_id: ledger.get(job).state is JobState.FAILED, "it does not end")  # type: ignore[misc]
        result = producer.result(job_id)
        assert isinstance(result, FailureResult)
        assert result.code == "invalid_request"
    assert DeadLetters(client).count() == 3 + 5 + 16 + 2  # the time limit is left out, and the rest can be read


def test_a_queued_job_that_is_revoked_by_celerys_remote_control_is_cancelled_and_can_be_retried(
    shared_worker: WorkerProcess, ledger: Ledger, settings: Settings
) -> None:
    made = QueryRequest(collection="starter", source=Source(sha256=uuid.uuid4().hex * 2))
    app = create_app(settings)
    ledger.submit([made])  # its message is not sent yet
    assert app.control.revoke(made.job_id, reply=True, limit=2, timeout=LIMIT_S)
    wait_for(lambda: ledger.get(made.job_id).state is JobState.CANCELLED, "it is not cancelled")
    Sender(app, settings).send_again(Operations.connect(settings).retry(made.job_id))
    wait_for(lambda: ledger.get(made.job_id).state is JobState.FAILED, "it does not run")  # its image is missing
    assert shared_worker.alive()


def test_dead_letters_can_be_listed_sent_again_and_forgotten(
    shared_worker: WorkerProcess, settings: Settings, stack_environment: dict[str, str], client: RedisClient
) -> None:
    client.lpush(QUEUE_QUERY, json.dumps(good_message(TASK_QUERY, QUEUE_INDEX, "", {})), b"[]")
    letters = DeadLetters(client)
    wait_for(lambda: letters.count() == 2, "they are not set aside")
    listed = aii_here(stack_environment, "jobs", "dead")
    assert listed.returncode == 0
    assert "names no job" in listed.stdout
    first, second = (line.split()[0] for line in listed.stdout.splitlines())
    assert aii_here(stack_environment, "jobs", "dead", "--resend", first).returncode == 0
    wait_for(lambda: letters.newest(1)[0].entry not in (first, second), "it was not sent again")
    assert aii_here(stack_environment, "jobs", "dead", "--drop", second).returncode == 0
    assert second not in {letter.entry for letter in letters.newest(9)}
    assert aii_here(stack_environment, "jobs", "dead", "--resend", second).returncode != 0
