"""The reconciler, on a real Redis with real Celery messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from tasks.app import Sender, create_app
from tasks.connection import connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import Claim
from tasks.settings import Settings
from tests.integration.test_ledger import QUEUE, claim, request
from workers.delivery.reconciler import LostPlaces, Reconciler
from workers.delivery.set_aside import SetAside


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with connect_redis(settings) as client:
        yield client


@pytest.fixture
def sender(settings: Settings) -> Sender:
    return Sender(create_app(settings), settings)


@pytest.fixture
def reconcile(ledger: Ledger, sender: Sender, client: redis.Redis, clock: Clock) -> Callable[[], int]:
    lost_places = partial(LostPlaces, 10.0, clock)
    return Reconciler(ledger.recovery, sender, client, 1.0, lost_places, SetAside(DeadLetters(client))).run_once


def submit(ledger: Ledger, sender: Sender, count: int) -> list[str]:
    requests = [request(f"asset-{i}") for i in range(count)]
    assert all(ledger.submit(requests))
    for r in requests:
        sender.send(r.job_id, r.task, r.queue, r.model_dump(mode="json"))
    return [r.job_id for r in requests]


def start_next(ledger: Ledger, client: redis.Redis, job_id: str) -> None:
    """What a worker does: take the message away and claim its job."""
    client.rpop(QUEUE)
    assert claim(ledger, job_id) is Claim.CLAIMED


def test_a_backlog_of_5000_waiting_jobs_produces_no_message(
    ledger: Ledger, sender: Sender, client: redis.Redis, clock: Clock, reconcile: Callable[[], int]
) -> None:
    jobs = submit(ledger, sender, 5000)
    for job_id in jobs[:20]:
        start_next(ledger, client, job_id)
        ledger.renew({job_id: "t"})
        clock.now += 30
        assert reconcile() == 0
    assert client.llen(QUEUE) == 4980


def test_an_overtaken_job_is_sent_again_after_the_grace_time(
    ledger: Ledger, sender: Sender, client: redis.Redis, clock: Clock, reconcile: Callable[[], int]
) -> None:
    jobs = submit(ledger, sender, 4)
    client.rpop(QUEUE)  # the first message is lost
    start_next(ledger, client, jobs[1])
    assert reconcile() == 0
    clock.now += 9
    assert reconcile() == 0
    clock.now += 2
    assert reconcile() == 1
    assert client.llen(QUEUE) == 3
    clock.now += 60
    assert reconcile() == 0


def test_a_job_whose_queue_ran_empty_is_sent_again_after_the_grace_time(
    ledger: Ledger, sender: Sender, client: redis.Redis, clock: Clock, reconcile: Callable[[], int]
) -> None:
    submit(ledger, sender, 1)
    client.delete(QUEUE)
    assert reconcile() == 0
    clock.now += 11
    assert reconcile() == 1
    assert client.llen(QUEUE) == 1


def test_a_job_submitted_into_an_empty_queue_is_given_its_time(
    ledger: Ledger, sender: Sender, clock: Clock, reconcile: Callable[[], int]
) -> None:
    assert reconcile() == 0  # the queue is empty from here on
    clock.now += 60
    ledger.submit([request()])  # its message is on the way
    assert reconcile() == 0
    clock.now += 11
    assert reconcile() == 1


def test_one_pass_runs_at_a_time(client: redis.Redis, ledger: Ledger, reconcile: Callable[[], int]) -> None:
    ledger.submit([request()])
    with client.lock("aii:reconciler", timeout=30):
        assert reconcile() == 0
        assert ledger.get(request().job_id).state == "queued"
