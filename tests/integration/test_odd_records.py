"""A record in Redis that makes no sense is set aside; everything else is served."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest

from tasks.app import Sender, create_app
from tasks.connection import RedisClient, connect_redis
from tasks.errors import RedisUnavailable
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.keys import LEASES, closed_key, head_key, job_key, later_key, open_key, seq_key
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import Claim, JobState
from tasks.monitoring.metrics import Metrics
from tasks.monitoring.observer import read_overview
from tasks.names import journal_stream
from tasks.settings import Settings
from tasks.shares import ALL_QUEUES
from tests.collections import Place, unit_vectors
from tests.integration.test_ledger import QUEUE, claim, submitted
from workers.delivery.reconciler import LostPlaces, Reconciler
from workers.delivery.set_aside import SetAside
from workers.index.collection.changes import encode_code


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    with connect_redis(settings) as client:
        yield client


@pytest.fixture
def reconciler(settings: Settings, ledger: Ledger, client: RedisClient) -> Reconciler:
    lost_places = partial(LostPlaces, 0.0)
    sender = Sender(create_app(settings), settings)
    return Reconciler(ledger.recovery, sender, client, 1.0, lost_places, SetAside(DeadLetters(client)))


def odd_job(client: RedisClient, job_id: str, fields: dict[str, Any] | str) -> str:
    if isinstance(fields, str):
        client.set(job_key(job_id), fields)
    else:
        client.hset(job_key(job_id), mapping=fields)
    return job_id


GOOD = {"state": "running", "task": "aii.activate", "queue": QUEUE, "payload": "{}", "submitted_ms": "1", "token": "t"}
ODD = [
    GOOD | {"queue": "elsewhere"},
    GOOD | {"payload": b"\xff"},
    GOOD | {"payload": "[" * 50_000},
    GOOD | {"queue": b"\xff"},
    GOOD | {"payload": "no JSON"},
    {name: value for name, value in GOOD.items() if name != "payload"},
    {name: value for name, value in GOOD.items() if name != "submitted_ms"},
    "no hash",
]


@pytest.mark.parametrize("fields", ODD)
def test_a_lease_of_an_odd_job_keeps_no_other_job_waiting(
    fields: dict[str, str] | str, ledger: Ledger, client: RedisClient, reconciler: Reconciler
) -> None:
    odd = odd_job(client, uuid.uuid4().hex, fields)
    good = submitted(ledger)
    claim(ledger, good)
    client.zadd(LEASES, {odd: 1, good: 2})
    assert reconciler.run_once() == 1
    assert (client.llen(QUEUE), client.zcard(LEASES), reconciler.run_once()) == (1, 0, 0)
    (letter,) = DeadLetters(client).newest(9)
    assert (letter.origin, json.loads(letter.content)["job_id"]) == ("ledger", odd)
    if isinstance(fields, dict):
        assert client.hget(job_key(odd), "state") == JobState.FAILED


@pytest.mark.parametrize("fields", ["no hash", {"state": "queued", "later": "1", "payload": "{"}])
def test_an_odd_job_that_was_put_off_or_is_overdue_keeps_no_other_waiting(
    fields: dict[str, str] | str, ledger: Ledger, client: RedisClient, reconciler: Reconciler
) -> None:
    odd, good = odd_job(client, uuid.uuid4().hex, fields), submitted(ledger)
    client.zadd(later_key(QUEUE), {odd: 1})
    client.zadd(open_key(QUEUE), {"1" * 32: "-inf"})
    reconciler.run_once()
    reconciler.run_once()
    assert client.lrange(QUEUE, 0, -1)
    assert good in client.lindex(QUEUE, 0)
    assert client.zcard(later_key(QUEUE)) == 0


def test_a_queue_that_is_no_list_keeps_no_other_queue_waiting(
    ledger: Ledger, client: RedisClient, reconciler: Reconciler
) -> None:
    client.set("query", "no list")
    submitted(ledger)
    reconciler.run_once()
    assert reconciler.run_once() + client.llen(QUEUE) >= 1


@pytest.mark.parametrize("key", [seq_key, head_key])
def test_a_queue_whose_places_are_of_another_type_is_named_and_every_other_searched(
    ledger: Ledger, client: RedisClient, caplog: pytest.LogCaptureFixture, key: Callable[[str], str]
) -> None:
    submitted(ledger)
    client.hset(key("query"), "no", "place")
    states = ledger.recovery.queue_states(ALL_QUEUES)
    assert set(states) == set(ALL_QUEUES) - {"query"}
    assert states[QUEUE].seq == 1
    assert "The queues query could not be searched" in caplog.text


def test_what_is_listed_leaves_out_odd_jobs_only(ledger: Ledger, client: RedisClient, settings: Settings) -> None:
    good, odd, other = submitted(ledger), uuid.uuid4().hex, uuid.uuid4().hex
    odd_job(client, odd, "no hash")
    odd_job(client, other, {"state": "archived", "task": "aii.later"})
    client.zadd(open_key(QUEUE), {odd: 0, other: 0.5})
    client.zadd(closed_key("failed"), {odd: 1, other: 2})
    operations = Operations.connect(settings)
    assert [record.job_id for record in operations.jobs(JobState.QUEUED, 9)] == [good]
    assert operations.jobs(JobState.FAILED, 9) == []
    assert ledger.states([odd, good, other]) == [None, JobState.QUEUED, None]
    assert ledger.renew({odd: "t", good: "t"}) == [odd, good]
    assert read_overview(settings).queues[1].waiting == 3


def test_one_odd_lease_costs_no_other_lease(ledger: Ledger, client: RedisClient) -> None:
    good = submitted(ledger)
    assert claim(ledger, good) is Claim.CLAIMED
    odd = odd_job(client, uuid.uuid4().hex, "no hash")
    assert ledger.renew({odd: "t", good: "t"}) == [odd]


def test_counters_and_places_that_make_no_sense_keep_no_job_from_its_end(ledger: Ledger, client: RedisClient) -> None:
    client.hset("aii:counts", mapping=dict.fromkeys(("submitted", "done"), "many"))
    client.set(head_key(QUEUE), "far")
    good = submitted(ledger)
    assert claim(ledger, good) is Claim.CLAIMED
    assert client.get(head_key(QUEUE)) == client.hget(job_key(good), "seq")
    assert ledger.close(good, "t", JobState.DONE)


def test_a_redis_that_forgets_its_scripts_is_asked_again_and_condemns_no_job(
    client: RedisClient, settings: Settings
) -> None:
    script, forgetting = client.register_script("return 1"), threading.Event()

    def forget() -> None:
        with connect_redis(settings) as other:
            while forgetting.is_set():
                other.script_flush()

    forgetting.set()
    thread = threading.Thread(target=forget)
    thread.start()
    try:
        for _ in range(300):
            with suppress(RedisUnavailable):
                assert script() == 1
    finally:
        forgetting.clear()
        thread.join()
    assert script() == 1


def test_figures_that_make_no_sense_are_left_out(client: RedisClient) -> None:
    odd = {"out|aii.query|answered": "many", "in|x": "1", "sum|": "2", "new|thing": "3", "fail|internal": "4"}
    client.hset("aii:metrics:2:total", mapping=odd)
    client.hset("aii:failures", mapping={"a": "no JSON", "b": "[]", "c": '{"code": "c"}'})
    metrics = Metrics(client)
    assert metrics.total().failures == {"internal": 4}
    assert metrics.failures() == []


ENTRIES: list[dict[Any, Any]] = [
    {"x": "1"},
    {"op": "add"},
    {"op": "add", "asset": "a"},
    {"op": "merge", "asset": "a", "code": "", "meta": "{}"},
    {"op": "add", "asset": "a", "code": "AAAA", "meta": "{}"},
    {"op": "add", "asset": "a", "code": "no base64!", "meta": "{}"},
    {"op": "add", "asset": "", "code": "AAAA", "meta": "{}"},
    {"op": "add", "asset": "a", "code": "AAAA", "meta": "[]"},
    {"op": "add", "asset": "a", "code": "{code in no cell}", "meta": "{}"},
    {"op": "add", "asset": b"\xff", "code": "{code}", "meta": "{}"},
    {"op": "add", "asset": "a", "code": "{code}", "meta": '{"a": "\\ud800"}'},
    {"op": "add", "asset": "a", "code": "{code}", "meta": "[" * 50_000},
    {"op": b"\xfe", b"\xff": b"\xff"},
    {"op": "remove", "asset": "a", "v": "9"},
    {"op": "remove"},
]


def test_odd_entries_of_a_journal_are_left_out_once_noted_and_queries_go_on(place: Place, settings: Settings) -> None:
    feature = unit_vectors(1, 7)[0]
    code = place.open().codec.encode(feature[None])[0]
    with connect_redis(settings) as client:
        letters, stream = DeadLetters(client), journal_stream(place.name)
        codes = {"{code}": encode_code(code), "{code in no cell}": encode_code(np.full_like(code, 255))}
        for fields in ENTRIES:
            client.xadd(stream, {name: codes.get(text, text) for name, text in fields.items()})
        client.hset(f"{stream}:live", "odd", "no entry")
        place.open().register("late", code, {})
        client.xadd(stream, {"op": "?"})
        for _ in range(2):
            found = place.open().search(feature, 3, 64)
            assert "late" in {match.asset_id for match in found.matches}
        assert letters.count() == len(ENTRIES) + 1
        assert {letter.origin for letter in letters.newest(99)} == {f"journal {stream}"}
        assert place.compact().assets == 501
        assert "late" in {match.asset_id for match in place.open().search(feature, 3, 64).matches}
