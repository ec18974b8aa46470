"""Clients take turns: no client waits for the end of another one's backlog, and share queues lose nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from producer import AsyncProducer, Producer
from tasks.app import Sender, create_app, submit
from tasks.connection import connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.events import EventLog, subject_of
from tasks.ledger.keys import open_key
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import Claim, JobState
from tasks.messages import ActivationOptions
from tasks.monitoring.observer import read_overview
from tasks.settings import Settings
from tasks.shares import queues_of, share_queue
from tasks.storage import ObjectStore
from tests.gateway import client_of, running_gateway
from tests.integration.test_ledger import QUEUE, brief, claim, request
from tests.photographs import crops
from tests.stack import WorkerProcess, aii
from tests.waiting import LIMIT_S, wait_for
from workers.delivery.reconciler import LostPlaces, Reconciler
from workers.delivery.set_aside import SetAside

BUSY, SHOP = "agency", "shop"
SHARE = share_queue(QUEUE, SHOP)


@pytest.fixture
def sender(settings: Settings) -> Sender:
    return Sender(create_app(settings), settings)


@pytest.fixture
def operations(settings: Settings) -> Operations:
    return Operations.connect(settings)


def submitted(ledger: Ledger, sender: Sender, name: str = "a") -> str:
    made = request(name)
    assert submit(ledger, sender, made, client=SHOP)
    return made.job_id


def reconciler(ledger: Ledger, sender: Sender, settings: Settings) -> Reconciler:
    client = connect_redis(settings)
    ticks = partial(next, count(0.0, 60.0))  # a minute passes between two questions
    return Reconciler(
        ledger.recovery, sender, client, 1.0, lambda: LostPlaces(10.0, ticks), SetAside(DeadLetters(client))
    )


def messages(settings: Settings) -> dict[str, int]:
    with connect_redis(settings) as client:
        return {queue: waiting for queue in queues_of(QUEUE) if (waiting := client.llen(queue))}


def test_jobs_of_all_clients_are_counted_listed_found_and_cancelled_together(
    ledger: Ledger, sender: Sender, operations: Operations, producer: Producer, settings: Settings
) -> None:
    job_id = submitted(ledger, sender)
    assert ledger.submit([request("b")]) == [True]
    waiting, age_s = operations.waiting(QUEUE)
    assert (waiting, age_s is not None) == (2, True)
    assert read_overview(settings).queues[1].waiting == 2
    assert {record.job_id for record in operations.jobs(JobState.QUEUED, 9)} == {job_id, request("b").job_id}
    assert operations.find(job_id[:8]) == job_id
    assert producer.cancel(job_id) is JobState.QUEUED
    assert operations.waiting(QUEUE)[0] == 1
    assert operations.retry(job_id).queue == SHARE
    assert operations.waiting(QUEUE)[0] == 2


def test_a_claimed_job_of_a_client_waits_no_more(ledger: Ledger, sender: Sender, operations: Operations) -> None:
    job_id = submitted(ledger, sender)
    assert claim(ledger, job_id) is Claim.CLAIMED
    assert operations.waiting(QUEUE) == (0, None)
    states = ledger.recovery.queue_states(queues_of(QUEUE))
    assert {queue: state.head for queue, state in states.items() if state.head} == {SHARE: 1}


def test_a_job_that_one_client_overtakes_is_not_taken_for_lost(
    ledger: Ledger, sender: Sender, settings: Settings
) -> None:
    assert submit(ledger, sender, request("first"))
    assert claim(ledger, submitted(ledger, sender, "second")) is Claim.CLAIMED
    with connect_redis(settings) as client:
        client.rpop(SHARE)
    one = reconciler(ledger, sender, settings)
    assert [one.run_once() for _ in range(3)] == [0, 0, 0]


def test_a_lost_message_is_sent_again_to_its_share_queue(ledger: Ledger, sender: Sender, settings: Settings) -> None:
    submitted(ledger, sender)
    with connect_redis(settings) as client:
        client.delete(SHARE)
    one = reconciler(ledger, sender, settings)
    assert [one.run_once(), one.run_once()] == [0, 1]
    assert messages(settings) == {SHARE: 1}


def test_a_job_whose_worker_died_goes_back_to_its_share_queue(
    settings: Settings, sender: Sender, operations: Operations
) -> None:
    ledger = brief(settings)
    claim(ledger, submitted(ledger, sender))
    one = reconciler(ledger, sender, settings)
    wait_for(one.run_once, "the lease does not run out")
    assert messages(settings) == {SHARE: 2}  # the first was taken by no one here
    assert operations.waiting(QUEUE)[0] == 1


def test_a_job_that_is_put_off_goes_back_to_its_share_queue(
    ledger: Ledger, sender: Sender, settings: Settings, operations: Operations
) -> None:
    job_id = submitted(ledger, sender)
    claim(ledger, job_id)
    assert ledger.postpone(job_id, QUEUE, "t", None)
    assert operations.waiting(QUEUE)[0] == 1
    one = reconciler(ledger, sender, settings)
    wait_for(one.run_once, "the pause does not end")
    assert messages(settings) == {SHARE: 2}
    assert claim(ledger, job_id, "again") is Claim.CLAIMED
    assert operations.waiting(QUEUE) == (0, None)


def test_a_dead_letter_goes_back_to_its_share_queue(settings: Settings) -> None:
    with connect_redis(settings) as client:
        letters = DeadLetters(client)
        letters.add(SHARE, "odd", b"x")
        assert letters.resend(letters.newest(1)[0].entry) == SHARE
    assert messages(settings) == {SHARE: 1}


@pytest.mark.parametrize(("client", "queue"), [(None, SHARE), ("", QUEUE), (BUSY, share_queue(QUEUE, BUSY))])
def test_a_producer_submits_for_the_client_it_is_given(
    client: str | None, queue: str, settings: Settings, operations: Operations
) -> None:
    named = settings.model_copy(update={"client": SHOP})

    async def awaited() -> str:
        async with AsyncProducer.connect(named, client=client) as producer:
            return (await producer.activate(crops(1)[0], again=True)).job_id

    with Producer.connect(named, client=client) as producer:
        jobs = [producer.activate(crops(1)[0], again=True).job_id, asyncio.run(awaited())]
    assert [operations.job(job_id).queue for job_id in jobs] == [queue, queue]


def test_the_gateway_submits_for_its_tokens(
    operations: Operations, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = stack_environment | {"AII_GATEWAY_TOKEN_FILE": str(tmp_path / "tokens.json")}
    token = aii(environment, "tokens", "add", SHOP, "--scope", "submit").stdout.strip()
    with running_gateway(environment, tmp_path / "gateway.log") as address, client_of(address, token) as client:
        accepted = client.post("/v1/activations", content=crops(1)[0], headers={"Content-Type": "image/jpeg"})
    assert operations.job(accepted.json()["job_id"]).queue == SHARE


def test_a_backlog_keeps_another_client_waiting_for_its_turn_only(
    producer: Producer, settings: Settings, start_worker: Callable[..., WorkerProcess]
) -> None:
    photo, options = crops(1, side=96)[0], ActivationOptions(steps=1)
    busy, shop = producer.on_behalf_of(BUSY), producer.on_behalf_of(SHOP)
    backlog = [busy.activate(photo, asset_id=f"{n}", options=options) for n in range(60)]
    jobs = [shop.activate(photo, asset_id=f"shop-{n}", options=options) for n in range(3)]
    start_worker(AII_ACTIVATE_THREADS="1")
    assert len(list(producer.wait_all([*backlog, *jobs], LIMIT_S))) == 63
    with connect_redis(settings) as client:
        ended = [event.subject for event in EventLog(client).read_after("0", 1)[1]]
    assert [ended.index(subject_of(job.job_id)) < 2 * n for n, job in enumerate(jobs, start=1)] == [True] * 3


@pytest.mark.usefixtures("shared_worker")
def test_messages_of_other_senders_are_taken_from_share_queues_too(producer: Producer, settings: Settings) -> None:
    made = producer.activate(crops(2)[1]).request
    with connect_redis(settings) as client:
        body = json.dumps([[made.model_copy(update={"nonce": "f" * 32}).message()], {}, {}])
        client.lpush(SHARE, json.dumps({"headers": {"task": made.task, "id": "of-another-sender"}, "body": body}))
        client.lpush(SHARE, json.dumps({"headers": {"task": made.task, "id": "an-odd-one"}, "body": "no JSON"}))
    states = partial(producer.ledger.states, ["of-another-sender", "an-odd-one"])
    wait_for(lambda: states() == [JobState.DONE, JobState.FAILED], "they are not taken")


def test_a_job_submitted_again_for_another_client_leaves_the_queue_it_was_in(
    ledger: Ledger, operations: Operations, store: ObjectStore, settings: Settings
) -> None:
    made = request("a")
    for client in ("", SHOP):
        assert ledger.submit([made], client=client) == [True]
        assert claim(ledger, made.job_id, "token") is Claim.CLAIMED
        assert ledger.postpone(made.job_id, QUEUE, "token", None) is not None
        if not client:
            operations.cancel(made.job_id, store)
    assert ledger.recovery.release(made.job_id, QUEUE) is None
    sent = ledger.recovery.release(made.job_id, SHARE)
    assert sent is not None
    assert sent.queue == SHARE
    with connect_redis(settings) as client:
        client.zadd(open_key(QUEUE), {made.job_id: 1})  # as an earlier version left it
    assert ledger.recovery.resend(made.job_id, QUEUE, 1) is None
    assert ledger.recovery.waiting_up_to(QUEUE, 99) == []
    assert [place for _, place in ledger.recovery.waiting_up_to(SHARE, 99)] == [2]
    assert operations.waiting(QUEUE)[0] == 1
