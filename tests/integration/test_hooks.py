"""Webhooks: the ends of jobs reach a receiver, signed, each under one id, whatever is away for a while."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from producer import Producer
from producer.hooks.deliver import Deliverer
from producer.hooks.deliveries import Deliveries, Delivery
from producer.hooks.registry import Hook, Hooks
from tasks.connection import connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.events import EventLog, subject_of
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.messages import QueryRequest, Source
from tasks.settings import Settings
from tests.gateway import dripping_server
from tests.ports import reserved_port
from tests.receiver import Receiver
from tests.stack import AII, aii
from tests.waiting import LIMIT_S, wait_for

MANY = int(os.environ.get("AII_HOOK_EVENTS", "100"))
AWAY_S = float(os.environ.get("AII_HOOK_AWAY_S", "0"))


@pytest.fixture
def receiver() -> Receiver:
    return Receiver(reserved_port())


@pytest.fixture
def deliveries(settings: Settings) -> Iterator[Deliveries]:
    with connect_redis(settings) as client:
        yield Deliveries(client)


@contextmanager
def delivering(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``aii hooks run``, which is killed at the end."""
    with log.open("a") as output:
        process = subprocess.Popen([*AII, "hooks", "run"], env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait(LIMIT_S)


def add_hook(environment: dict[str, str], url: str, *options: str) -> tuple[str, str]:
    """Its id and its secret."""
    made = aii(environment, "hooks", "add", url, *options)
    assert made.returncode == 0, made.stderr
    hook_id, secret = made.stdout.split()
    return hook_id, secret


def end_jobs(ledger: Ledger, count: int, state: JobState = JobState.DONE) -> list[str]:
    """Jobs that a worker has ended, without their work."""
    ended = []
    for number in range(count):
        source = Source(sha256=f"{number:064x}", size=1)
        request = QueryRequest(collection="starter", source=source, nonce=os.urandom(8).hex())
        ledger.submit([request])
        assert ledger.claim(request.job_id, request.queue, "token", "test").granted
        assert ledger.close(request.job_id, "token", state, code="" if state is JobState.DONE else "empty")
        ended.append(request.job_id)
    return ended


def test_a_receiver_verifies_and_reads_the_end_of_a_job(
    ledger: Ledger, stack_environment: dict[str, str], settings: Settings, receiver: Receiver, tmp_path: Path
) -> None:
    _, secret = add_hook(stack_environment, receiver.url)
    (job_id,) = end_jobs(ledger, 1, JobState.FAILED)
    with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
        wait_for(lambda: receiver.messages, "nothing was delivered")
    headers, body = receiver.messages[0]
    event = Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)
    assert (event["specversion"], event["type"], event["data"]["job_id"]) == ("1.0", "aii.job.failed", job_id)
    assert (event["data"]["error_code"], event["subject"]) == ("empty", subject_of(job_id))
    with connect_redis(settings) as client:
        (announced,) = EventLog(client).read_after("0-0", 1)[1]
    assert event["id"] == announced.event_id == headers["webhook-id"]


def test_a_receiver_that_was_away_gets_all_events_each_under_one_id(
    ledger: Ledger, stack_environment: dict[str, str], deliveries: Deliveries, receiver: Receiver, tmp_path: Path
) -> None:
    """The process that delivers is killed meanwhile, and the receiver refuses for a while when it is back."""
    add_hook(stack_environment, receiver.url)
    ended = end_jobs(ledger, MANY)
    away_until = time.monotonic() + AWAY_S
    with delivering(stack_environment, tmp_path / "log"):
        wait_for(lambda: any(one.attempts for one in deliveries.listed("pending", 10)), "nothing was tried")
        wait_for(lambda: time.monotonic() >= away_until)
    receiver.status = 503
    with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
        wait_for(lambda: any(one.answer == "503" for one in deliveries.listed("pending", MANY)), "no refusal was noted")
        receiver.status = 200
        hurry(deliveries)
        wait_for(lambda: deliveries.counts()["done"] == MANY and hurry(deliveries), "not all were delivered")
    events = receiver.events()
    assert {event["data"]["job_id"] for event in events} == set(ended)
    ids = Counter((event["id"], event["data"]["job_id"]) for event in events)
    assert len(ids) == MANY


def hurry(deliveries: Deliveries) -> bool:
    """Make all pending deliveries due now: a test does not wait for pauses and claims."""
    for delivery in deliveries.listed("pending", MANY):
        deliveries.resend(delivery.delivery_id)
    return True


def test_deliveries_are_listed_and_sent_again(
    ledger: Ledger, stack_environment: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    add_hook(stack_environment, receiver.url, "--state", "failed")
    end_jobs(ledger, 1)
    end_jobs(ledger, 1, JobState.FAILED)
    with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
        done = wait_for(lambda: listed(stack_environment, "done"), "nothing was delivered")
        assert [line[1:] for line in done] == [["1", "200"]]
        assert aii(stack_environment, "hooks", "resend", done[0][0]).returncode == 0
        wait_for(lambda: len(receiver.messages) == 2, "it was not sent again")
    first, second = receiver.messages
    assert first[1] == second[1]
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert aii(stack_environment, "hooks", "resend", "none:such").returncode == 1


def listed(environment: dict[str, str], which: str) -> list[list[str]]:
    lines = aii(environment, "hooks", "list", "--deliveries", which).stdout.splitlines()
    return [line.split("\t") for line in lines]


def test_what_no_receiver_takes_for_a_day_is_given_up_and_kept(
    ledger: Ledger, stack_environment: dict[str, str], settings: Settings, deliveries: Deliveries, receiver: Receiver
) -> None:
    add_hook(stack_environment, receiver.url)
    end_jobs(ledger, 1)
    delivery = taken(deliveries, settings)
    assert deliveries.note(delivery, False, "503") == "later"
    with connect_redis(settings) as client:
        client.hincrby(f"aii:hooks:delivery:{delivery.delivery_id}", "first_ms", -86_400_000)
    assert deliveries.note(delivery, False, "503") == "failed"
    assert aii(stack_environment, "hooks", "resend", "--failed").returncode == 0
    assert deliveries.counts() == {"pending": 1, "done": 0, "failed": 0}


def test_a_receiver_that_has_gone_for_good_is_not_tried_again(
    ledger: Ledger, stack_environment: dict[str, str], settings: Settings, deliveries: Deliveries, receiver: Receiver
) -> None:
    add_hook(stack_environment, receiver.url)
    end_jobs(ledger, 1)
    assert deliveries.note(taken(deliveries, settings), False, "410") == "failed"
    assert deliveries.counts() == {"pending": 0, "done": 0, "failed": 1}


def test_a_redirect_is_no_delivery_and_is_not_followed(
    ledger: Ledger, stack_environment: dict[str, str], deliveries: Deliveries, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.status = 307
    add_hook(stack_environment, receiver.url)
    end_jobs(ledger, 1)
    with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
        wait_for(lambda: [one.answer for one in deliveries.listed("pending", 1)] == ["307"], "it is not noted")
    assert receiver.messages == []


def test_a_host_that_is_no_name_counts_as_a_failed_attempt(
    ledger: Ledger, deliveries: Deliveries, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    add_hook(stack_environment, "http://a..b/hook")
    end_jobs(ledger, 1)
    with delivering(stack_environment, tmp_path / "hooks.log"):
        wait_for(lambda: [one.answer for one in deliveries.listed("pending", 1)] == ["ConnectError"], "it is not noted")


def taken(deliveries: Deliveries, settings: Settings) -> Delivery:
    deliveries.open()
    with connect_redis(settings) as client:
        hooks = Hooks(client).all()
    deliveries.take("test", hooks, 10, 1)
    return deliveries.due({hook.hook_id: 10 for hook in hooks})[0]


def test_a_receiver_that_never_answers_keeps_no_other_waiting(
    ledger: Ledger, stack_environment: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        for _ in range(2):
            add_hook(stack_environment, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        add_hook(stack_environment, receiver.url)
        ended = end_jobs(ledger, 40)
        with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
            wait_for(lambda: {event["data"]["job_id"] for event in receiver.events()} == set(ended), "some were kept")


def test_an_answer_that_drips_is_not_waited_for(
    ledger: Ledger, stack_environment: dict[str, str], settings: Settings, deliveries: Deliveries
) -> None:
    with dripping_server() as address:
        add_hook(stack_environment, address)
        end_jobs(ledger, 1)
        delivery = taken(deliveries, settings)
        with connect_redis(settings) as client:
            (hook,) = Hooks(client).all()
            tried = asyncio.run(one_try(Hooks(client), deliveries, hook, delivery))
    assert tried == (False, "TimeoutError")


async def one_try(hooks: Hooks, deliveries: Deliveries, hook: Hook, delivery: Delivery) -> tuple[bool, str]:
    async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
        return await Deliverer(hooks, deliveries, client, timeout_s=0.5)._post(hook, delivery)


@pytest.mark.parametrize(
    "entry", [{"id": "x"}, {"id": "x", "state": "odd", "job": "j", "task": "t", "document": "1", "error_code": ""},
              {"id": b"\xff", "state": b"\xff", "job": "j", "task": "t", "document": "no", "error_code": ""}]
)  # fmt: skip
def test_an_odd_record_is_set_aside_and_the_next_is_delivered(
    ledger: Ledger, stack_environment: dict[str, str], settings: Settings, receiver: Receiver, tmp_path: Path,
    entry: dict[str, str],
) -> None:  # fmt: skip
    hook_id, _ = add_hook(stack_environment, receiver.url)
    with connect_redis(settings) as client:
        client.hset("aii:hooks", mapping={"odd": '{"url": "\\ud800"}', b"\xff": b"\xff"})
        client.xadd("aii:hooks:outbox", entry)
        client.hset(f"aii:hooks:delivery:{hook_id}:odd", mapping={"event": b"\xff", "attempts": "1"})
        client.set(f"aii:hooks:delivery:{hook_id}:text", "no hash")
        client.zadd(f"aii:hooks:pending:{hook_id}", {f"{hook_id}:odd": 1, f"{hook_id}:text": 1, f"{hook_id}:gone": 1})
        (job_id,) = end_jobs(ledger, 1)
        with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
            wait_for(lambda: [event["data"]["job_id"] for event in receiver.events()] == [job_id])
        letters = DeadLetters(client).newest(10)
    assert {letter.origin for letter in letters} == {"hooks"}
    assert len(letters) == 5
    assert aii(stack_environment, "jobs", "dead").returncode == 0
    assert receiver.url in aii(stack_environment, "hooks", "list").stdout


def test_of_very_many_pending_the_newest_are_given_up(
    ledger: Ledger, stack_environment: dict[str, str], settings: Settings, deliveries: Deliveries
) -> None:
    hook_id, _ = add_hook(stack_environment, "http://127.0.0.1:1/")
    with connect_redis(settings) as client:
        for start in range(0, 100_000, 10_000):
            client.zadd(f"aii:hooks:pending:{hook_id}", dict.fromkeys(map(str, range(start, start + 10_000)), 10**15))
        end_jobs(ledger, 1)
        deliveries.open()
        deliveries.take("test", Hooks(client).all(), 10, 1)
    assert [one.answer for one in deliveries.listed("failed", 10)] == ["too many pending"]
    assert aii(stack_environment, "hooks", "remove", hook_id).returncode == 0
    assert deliveries.counts() == {"pending": 0, "done": 0, "failed": 1}


def test_without_a_hook_workers_write_no_outbox(ledger: Ledger, settings: Settings) -> None:
    end_jobs(ledger, 1)
    with connect_redis(settings) as client:
        assert not client.exists("aii:hooks:outbox")


def test_a_removed_hook_receives_nothing(
    ledger: Ledger, stack_environment: dict[str, str], deliveries: Deliveries, receiver: Receiver, tmp_path: Path
) -> None:
    hook_id, _ = add_hook(stack_environment, receiver.url)
    other, _ = add_hook(stack_environment, receiver.url)
    end_jobs(ledger, 1)
    assert aii(stack_environment, "hooks", "remove", hook_id).returncode == 0
    with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
        wait_for(lambda: deliveries.counts() == {"pending": 0, "done": 1, "failed": 0})
    assert deliveries.listed("done", 10)[0].hook_id == other


def test_the_process_that_delivers_ends_when_told(
    stack_environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    with connect_redis(settings) as client, delivering(stack_environment, tmp_path / "log") as process:
        wait_for(lambda: client.exists("aii:hooks:outbox"), "it does not run")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def test_a_login_in_a_hooks_url_is_not_listed(stack_environment: dict[str, str]) -> None:
    host = "receiver.example:8443/ends?of=jobs"
    assert aii(stack_environment, "hooks", "add", f"https://user:secret@{host}").returncode == 0
    listed = aii(stack_environment, "hooks", "list").stdout
    assert (f"https://***@{host}" in listed, "secret" in listed) == (True, False)


@pytest.mark.parametrize("url", ["ftp://x/", "nothing", "http://"])
def test_a_hook_needs_a_url(stack_environment: dict[str, str], url: str) -> None:
    refused = aii(stack_environment, "hooks", "add", url)
    assert (refused.returncode, "invalid_request" in refused.stderr) == (1, True)


@pytest.mark.usefixtures("shared_worker")
def test_a_real_job_is_told(
    producer: Producer, stack_environment: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    add_hook(stack_environment, receiver.url)
    job = producer.query(b"no image")
    with receiver.listening(), delivering(stack_environment, tmp_path / "log"):
        wait_for(lambda: receiver.messages, "nothing was delivered")
    assert receiver.events()[0]["data"]["job_id"] == job.job_id
