"""What of a message goes on to Celery, and what does not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from kombu.transport.virtual.base import Message

from tasks.messages import QueryRequest, validated
from tasks.names import QUEUE_ACTIVATE, QUEUE_QUERY, TASK_ACTIVATE, TASK_QUERY, result_key, sha256_hex
from tests.odd_messages import good_message, odd_elements
from workers.delivery.envelope import Envelope, Unusable, read_envelope

JOB = "0123456789abcdef" * 2
REQUEST = {"task": TASK_QUERY, "nonce": "ä"}


def message(**changes: Any) -> dict[str, Any]:
    made = good_message(TASK_QUERY, QUEUE_QUERY, JOB, REQUEST)
    for name, value in changes.items():
        place = made if name in made else made["headers"] if name in made["headers"] else made["properties"]
        place[name] = value
    return made


def read(**changes: Any) -> Envelope:
    return read_envelope(json.dumps(message(**changes)).encode(), QUEUE_QUERY)


def encoded(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def test_of_a_good_message_its_job_its_task_and_its_request_go_on() -> None:
    assert read() == Envelope(JOB, TASK_QUERY, REQUEST)


def test_a_message_of_celerys_older_protocol_is_read() -> None:
    body = {"task": TASK_QUERY, "id": JOB, "args": [REQUEST], "kwargs": {}}
    assert read(headers={}, body=encoded(body)) == Envelope(JOB, TASK_QUERY, REQUEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"timelimit": None}, {"timelimit": ["soon", {}]}, {"eta": "tomorrow"}, {"eta": "9999-12-31T23:59:59"},
        {"expires": 1e300},
        {"root_id": []}, {"shadow": {}}, {"retries": "many"}, {"delivery_tag": None}, {"delivery_info": 1},
        {"correlation_id": []}, {"priority": "high"}, {"argsrepr": 5}, {"kwargsrepr": None},
    ],
)  # fmt: skip
def test_what_a_job_does_not_need_is_left_behind(changes: dict[str, Any]) -> None:
    assert read(**changes) == Envelope(JOB, TASK_QUERY, REQUEST)


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        {},
        [],
        "no base64!",
        encoded(7),
        encoded([]),
        encoded({"a": 1}),
        "",
        encoded([[], {"request": "\ud800"}, {}]),
        base64.b64encode(b'[[], {"request": ' + b"[" * 150 + b"]" * 150 + b"}, {}]").decode(),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_the_name_of_its_job(body: Any) -> None:
    with pytest.raises(Unusable) as refused:
        read(body=body)
    assert refused.value.job_id == JOB


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        ("x", "x"),
        ("order 17/ä", None),
        (JOB + "\n", None),
        ("../x", None),
        ("\ud800", None),
    ],
)
def test_any_text_is_an_id_and_one_that_no_key_can_hold_is_known_by_its_digest(given: str, known: str | None) -> None:
    job_id = read(id=given).job_id
    assert job_id == (known or sha256_hex(given.encode(errors="surrogatepass"))[:32])
    assert result_key(job_id) == f"{job_id}.json"


@pytest.mark.parametrize("job_id", [None, 5, [JOB], ""])
def test_a_message_without_an_id_is_named_by_its_request_if_that_can_be_used(job_id: Any) -> None:
    with pytest.raises(Unusable, match="names no job") as refused:
        read(id=job_id)
    assert refused.value.job_id is None
    request = {"collection": "starter", "source": {"sha256": "0" * 64}}
    assert read(id=job_id, body=encoded([[request], {}, {}])).job_id == validated(QueryRequest, request).job_id


@pytest.mark.parametrize("task", ["aii.other", TASK_ACTIVATE, None, [TASK_QUERY], {}])
def test_a_task_that_is_not_the_queues_is_refused(task: Any) -> None:
    with pytest.raises(Unusable, match="no jobs of the task") as refused:
        read(task=task)
    assert refused.value.job_id == JOB


@pytest.mark.parametrize("changes", [{"compression": "gzip"}, {"content-type": "application/x-python-serialize"}])
def test_nothing_is_unpacked_or_unpickled(changes: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match="no plain JSON"):
        read(**changes)


def test_a_message_above_a_megabyte_is_not_read() -> None:
    with pytest.raises(Unusable, match="at most"):
        read_envelope(b" " * 2**20 + b"{}", QUEUE_QUERY)


@given(odd_elements(QUEUE_ACTIVATE))
def test_whatever_is_in_a_list_is_refused_or_can_be_read_by_kombu(element: bytes) -> None:
    try:
        envelope = read_envelope(element, QUEUE_ACTIVATE)
    except Unusable:
        return
    made = envelope.for_celery(QUEUE_ACTIVATE)
    read = Message(json.loads(json.dumps(made)), channel=Plain())
    args, named, _ = read.payload
    assert (read.headers["id"], read.headers["task"], args) == (envelope.job_id, TASK_ACTIVATE, [])
    assert json.dumps(named["request"]) == json.dumps(envelope.request)


class Plain:
    """As much of a channel as kombu's message asks for."""

    @staticmethod
    def decode_body(body: str, encoding: str) -> bytes:
        assert encoding == "base64"
        return base64.b64decode(body)
