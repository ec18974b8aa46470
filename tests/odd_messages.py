"""What may be found in a queue's list: messages that are wrong in one place, or in all."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tasks.names import QUEUE_ACTIVATE, QUEUE_INDEX, QUEUE_QUERY, TASK_ACTIVATE, TASK_COMPACT, TASK_EXTRACT, TASK_QUERY

__all__ = ["good_message", "odd_elements", "some_odd_elements"]

TASKS = {QUEUE_QUERY: (TASK_QUERY,), QUEUE_ACTIVATE: (TASK_ACTIVATE,), QUEUE_INDEX: (TASK_COMPACT, TASK_EXTRACT)}

_text = st.text(max_size=12) | st.sampled_from(
    ["", "base64", "gzip", "utf-8", "ascii", "pickle", "application/x-python"]
)
_times = st.sampled_from(["2026-13-45", "tomorrow", "9999-12-31T23:59:59", "0001-01-01T00:00:00+14:00", 1e300, -1, []])
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | _text | _times
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3), max_leaves=8
)


def good_message(task: str, queue: str, job_id: str, request: Any) -> dict[str, Any]:
    """As Celery sends it."""
    body = base64.b64encode(json.dumps([[], {"request": request}, {}]).encode()).decode()
    return {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": task, "id": job_id, "root_id": job_id, "parent_id": None, "group": None, "eta": None,
            "expires": None, "retries": 0, "timelimit": [None, None], "argsrepr": "()", "kwargsrepr": "{}",
            "origin": "test", "ignore_result": True, "shadow": None, "compression": None, "stamps": {},
        },
        "properties": {
            "correlation_id": job_id, "reply_to": str(uuid.uuid4()), "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": queue}, "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }  # fmt: skip


@st.composite
def _wrong_in_places(draw: st.DrawFn, queue: str) -> bytes:
    task = draw(st.sampled_from([*TASKS[queue], "aii.other", TASK_QUERY, "celery.chord_unlock"]))
    job_id = draw(st.sampled_from([uuid.UUID(int=draw(st.integers(0, 2**128 - 1))).hex, "x", "0" * 31]))
    message = good_message(task, queue, job_id, draw(_json))
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(["", "headers", "properties", "delivery_info"]))
        target = message if not part else message.get(part) or message.get("properties", {})
        if isinstance(target, dict) and target:
            key = draw(st.sampled_from(sorted(target)))
            if draw(st.booleans()):
                target[key] = draw(_json)
            else:
                del target[key]
    if draw(st.booleans()):
        body = json.dumps(draw(_json)).encode()
        message["body"] = base64.b64encode(body).decode() if draw(st.booleans()) else body.decode()
    return json.dumps(message).encode()


def odd_elements(queue: str) -> st.SearchStrategy[bytes]:
    """Elements of that queue's list."""
    return (
        st.binary(max_size=40)
        | _json.map(lambda value: json.dumps(value).encode())
        | st.just(b"[" * 100_000)
        | st.just(b'{"a":' * 900 + b"1" + b"}" * 900)
        | _wrong_in_places(queue)
    )


def some_odd_elements(queue: str, count: int) -> list[bytes]:
    """So many of them, the same ones at every call."""
    found: list[bytes] = []

    @settings(max_examples=count, phases=[Phase.generate], derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(odd_elements(queue))
    def collect(element: bytes) -> None:
        found.append(element)

    collect()
    return found
