"""Calls of the ledger that several threads make as one script: each job has its own answer, as if it were alone."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.exceptions import ResponseError

from producer.hooks.registry import HOOKS
from tasks.connection import RedisClient, connect_redis
from tasks.ledger import batch_delay
from tasks.ledger.batch_delay import BatchDelay
from tasks.ledger.commits import JobFacts, Registration, Seen
from tasks.ledger.keys import COUNTS, EVENTS, LEASES, JournalKeys, closed_key, head_key, job_key, open_key, since_key
from tasks.ledger.ledger import Ledger
from tasks.ledger.shared_calls import ClaimCall, CloseCall, CommitCall, PublishCall, SharedCalls
from tasks.ledger.states import JobState
from tasks.names import QUEUE_ACTIVATE
from tasks.settings import Settings
from tests.benchmarks.redis import monitored
from tests.integration import test_ledger
from tests.waiting import wait_for

OK = ("", "")
NO_CHANGE = ("", "", "")
LONG_S = 60.0  # only guards against hanging


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    with connect_redis(settings) as client:
        yield client


@pytest.fixture
def calls(client: RedisClient) -> SharedCalls:
    return SharedCalls(client, 60_000, 1)


def claim_of(job_id: str, token: str = "t") -> ClaimCall:
    return ClaimCall(job_id, token, QUEUE_ACTIVATE, "worker")


def submitted(ledger: Ledger) -> str:
    return test_ledger.submitted(ledger, uuid.uuid4().hex)


def running(ledger: Ledger, calls: SharedCalls, count: int) -> list[str]:
    jobs = [submitted(ledger) for _ in range(count)]
    assert calls._claim_all([claim_of(job) for job in jobs]) == ["claimed"] * count
    return jobs


def commit_of(job_id: str, collection: str, asset_id: str, token: str = "t") -> CommitCall:
    facts = JobFacts(job_id, "source", "key", "sha256", "options")
    registration = Registration(collection, asset_id, "CODE", "{}", facts)
    return CommitCall(job_id, token, ('{"entry":"', '"}'), registration, Seen("0", None), 0)


def close_of(job_id: str, recorded: tuple[str, str, str] = NO_CHANGE, token: str = "t") -> CloseCall:
    return CloseCall(job_id, token, JobState.DONE, OK, 60, recorded)


def test_claims_of_several_jobs_are_granted_each_by_its_own_state(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    taken, first, second, later = (submitted(ledger) for _ in range(4))
    assert calls.claim(claim_of(taken, "another")) == "claimed"
    wanted = [claim_of(job) for job in (second, taken, first, uuid.uuid4().hex)]
    assert calls._claim_all([*wanted, claim_of(first, "twice")]) == [
        "claimed",
        "leased",
        "claimed",
        "missing",
        "leased",
    ]
    assert client.hget(job_key(first), "token") == "t"
    assert client.zrange(open_key(QUEUE_ACTIVATE), 0, -1) == client.zrange(since_key(QUEUE_ACTIVATE), 0, -1) == [later]
    assert set(client.zrange(LEASES, 0, -1)) == {taken, first, second}
    assert client.get(head_key(QUEUE_ACTIVATE)) == client.hget(job_key(second), "seq")


CALLS: Mapping[str, Callable[[Ledger, str], Any]] = {
    "claim": test_ledger.claim,
    "publish": lambda ledger, job: ledger.begin_publishing(job, "t"),
    "commit": lambda ledger, job: ledger.commit(job, "t", ("{}", ""), None, None, 0),
    "close": lambda ledger, job: ledger.close(job, "t", JobState.DONE),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_jobs_that_are_at_work_together_are_one_script(
    ledger: Ledger, calls: SharedCalls, client: RedisClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of four threads wait for others; the fifth belongs to no job at work, and makes the call for all."""
    monkeypatch.setattr(batch_delay, "_LONGEST_S", LONG_S)
    ledger.batch_delay = BatchDelay(itertools.count(step=1_000_000).__next__)  # jobs take for ever
    jobs = [submitted(ledger) for _ in range(5)] if name == "claim" else running(ledger, calls, 5)
    meet = threading.Barrier(4)

    def work(job: str) -> Any:
        with ledger.batch_delay.job():
            meet.wait(LONG_S)
            return CALLS[name](ledger, job)

    def all_wait() -> bool:
        group = getattr(ledger._shared, name)._next
        return len(group.items if group else []) == 4 or all(one.done() for one in others)

    with monitored(client) as commands, ThreadPoolExecutor(4) as pool:
        others = [pool.submit(work, job) for job in jobs[1:]]
        wait_for(all_wait, "they do not come together")
        assert CALLS[name](ledger, jobs[0])
        assert all(one.result(LONG_S) for one in others)
    # Redis is sent the same twice where it has to load the script first.
    (script,) = {one.text for one in commands if one.name == "evalsha" and any(job in one.text for job in jobs)}
    assert all(job_key(job) in script for job in jobs)


def test_the_furthest_place_stays_when_an_earlier_job_starts_later(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    first, second = submitted(ledger), submitted(ledger)
    for job in (second, first):
        assert calls.claim(claim_of(job)) == "claimed"
    assert client.get(head_key(QUEUE_ACTIVATE)) == client.hget(job_key(second), "seq")


def test_a_claim_whose_answer_got_lost_is_granted_again_and_is_no_death(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    (job,) = running(ledger, calls, 1)
    assert calls.claim(claim_of(job)) == "claimed"
    assert client.hget(job_key(job), "deaths") is None


def test_an_odd_record_fails_the_claim_of_its_own_job_only(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    good, odd = submitted(ledger), submitted(ledger)
    client.hset(job_key(odd), "seq", "far")
    good_one, odd_one = calls.claim._tried([claim_of(good), claim_of(odd)])
    assert good_one == "claimed"
    assert isinstance(odd_one, Exception)


@pytest.mark.parametrize(("field", "value"), [("deaths", "many"), ("died_alone", "1.5"), ("seq", "inf"), ("seq", None)])
def test_a_record_that_makes_no_sense_fails_a_script_of_claims_without_effect(
    ledger: Ledger, calls: SharedCalls, client: RedisClient, field: str, value: str | None
) -> None:
    good, odd = submitted(ledger), submitted(ledger)
    client.hset(job_key(odd), mapping={"state": "running", field: value or ""})
    if value is None:
        client.hdel(job_key(odd), field)
    before = client.hgetall(job_key(good)), client.hgetall(job_key(odd))
    with pytest.raises(ResponseError, match="invalid record"):
        calls._claim_all([claim_of(good), claim_of(odd)])
    assert (client.hgetall(job_key(good)), client.hgetall(job_key(odd))) == before
    assert client.zrange(open_key(QUEUE_ACTIVATE), 0, -1) == [good, odd]
    assert client.get(head_key(QUEUE_ACTIVATE)) is None


@pytest.mark.parametrize("key", [since_key(QUEUE_ACTIVATE), open_key(QUEUE_ACTIVATE), LEASES])
def test_a_list_of_another_type_leaves_no_claim_half_made(
    ledger: Ledger, calls: SharedCalls, client: RedisClient, key: str
) -> None:
    jobs = [submitted(ledger) for _ in range(2)]
    client.set(key, "no list")
    answers = calls.claim._tried([claim_of(job) for job in jobs])
    assert all("WRONGTYPE" in str(answer) for answer in answers)
    assert [client.hmget(job_key(job), "state", "deaths", "token") for job in jobs] == [["queued", None, None]] * 2
    if key != open_key(QUEUE_ACTIVATE):
        assert client.zrange(open_key(QUEUE_ACTIVATE), 0, -1) == jobs
    client.delete(key)
    assert calls._claim_all([claim_of(job) for job in jobs]) == ["claimed"] * 2


def test_only_those_that_hold_their_jobs_may_publish(ledger: Ledger, calls: SharedCalls, client: RedisClient) -> None:
    first, second = running(ledger, calls, 2)
    assert calls._publish_all([PublishCall(first, "t"), PublishCall(second, "another's")]) == [True, False]
    assert client.hget(job_key(second), "publishing") is None


def test_commits_of_several_jobs_register_each_asset_once_and_in_order(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    one, two, three, lost = running(ledger, calls, 4)
    collection = f"c-{uuid.uuid4().hex[:8]}"
    keys = JournalKeys.of(collection)
    wanted = [
        commit_of(one, collection, "first"),
        commit_of(two, collection, "second"),
        commit_of(three, collection, "second"),
        commit_of(lost, collection, "third", "another's"),
        CommitCall(lost, "t", ("{}", ""), None, None, 4),
        commit_of(one, collection, "first"),
    ]
    answers = calls._commit_all(wanted)
    assert [answer[0] for answer in answers] == ["committed"] * 3 + ["lost"] + ["committed"] * 2
    assert answers[5] == answers[0]
    assert answers[4][1:] == ["{}", "5"]
    entries = {"first": json.loads(answers[0][1])["entry"], "second": json.loads(answers[2][1])["entry"]}
    assert client.hgetall(keys.unrecorded) == entries
    assert {asset: change.split(" ")[0] for asset, change in client.hgetall(keys.live).items()} == entries
    assert client.hget(job_key(two), "superseded_by") == three
    assert client.xlen(keys.stream) == 3


def test_a_commit_that_has_to_be_repeated_keeps_no_other_from_its_own(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    one, two = running(ledger, calls, 2)
    collection = f"c-{uuid.uuid4().hex[:8]}"
    client.hset(JournalKeys.of(collection).purges, "first", 1)
    answers = calls._commit_all([commit_of(one, collection, "first"), commit_of(two, collection, "second")])
    assert [answer[0] for answer in answers] == ["moved", "committed"]
    assert client.hget(job_key(one), "document") is None


def test_an_earlier_job_of_another_type_fails_no_commit_and_adds_no_entry_twice(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    earlier, one, two = running(ledger, calls, 3)
    collection = f"c-{uuid.uuid4().hex[:8]}"
    calls.commit(commit_of(earlier, collection, "first"))
    client.set(job_key(earlier), "no hash")
    answers = calls._commit_all([commit_of(one, collection, "second"), commit_of(two, collection, "first")])
    assert [answer[0] for answer in answers] == ["committed"] * 2
    assert client.xlen(JournalKeys.of(collection).stream) == 3


def test_an_outbox_of_another_type_fails_no_end_and_announces_none_twice(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    jobs = running(ledger, calls, 2)
    client.hset(HOOKS, "hook", "{}")
    client.set("aii:hooks:outbox", "no stream")
    before = client.xlen(EVENTS)
    assert calls._close_all([close_of(job) for job in jobs]) == [True, True]
    assert client.xlen(EVENTS) - before == 2


def test_jobs_that_are_closed_together_have_an_event_each_and_are_counted_once(
    ledger: Ledger, calls: SharedCalls, client: RedisClient
) -> None:
    one, two, failed, lost = running(ledger, calls, 4)
    collection = f"c-{uuid.uuid4().hex[:8]}"
    keys = JournalKeys.of(collection)
    client.hset(keys.unrecorded, mapping={"first": "1-1", "second": "2-2"})
    ends = [
        close_of(one, (collection, "first", "1-1")),
        close_of(two, (collection, "second", "1-2")),
        CloseCall(failed, "t", JobState.FAILED, ("truncated", "It is cut off."), 60, NO_CHANGE),
        close_of(lost, token="another's"),
        close_of(one),
    ]
    before = client.xlen(EVENTS)
    assert calls._close_all(ends) == [True, True, True, False, False]
    assert client.hgetall(keys.unrecorded) == {"second": "2-2"}
    assert client.xlen(EVENTS) - before == 3
    assert client.hmget(COUNTS, "done", "failed") == ["2", "1"]
    assert client.zrange(LEASES, 0, -1) == [lost]
    assert set(client.zrange(closed_key("done"), 0, -1)) == {one, two}
    assert client.hget(job_key(failed), "error_message") == "It is cut off."
    assert all(0 < client.ttl(job_key(job)) <= 60 for job in (one, two, failed))
