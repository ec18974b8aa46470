"""What a queue's list holds, made into a message that Celery cannot stumble over.

Anybody with a password can put anything into the list. Celery trusts what it reads there: a body that is a number, an
id that is a list or a time limit that is none ends the whole worker, and the message goes back for the next one. So
each element is read here first, and only what a job consists of goes on: its id, its task, its request. Everything
else (time limits, dates, callbacks, compression) is left behind.

The sender of a message names its job, as Celery's senders do: any text is an id. One that cannot be part of a key
becomes the first 32 hex digits of its SHA-256. A message without an id is named by its request (:mod:`tasks.identity`).
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

from tasks.errors import AiiError
from tasks.kinds import KINDS, QUEUE_OF_TASK
from tasks.messages import validated
from tasks.names import JOB_ID_PATTERN, sha256_hex
from tasks.shares import base_queue

__all__ = ["REFUSED_TASK", "Envelope", "Unusable", "read_envelope"]

# Ends a job whose message cannot be used with a document that says so. Sent by no producer.
REFUSED_TASK: Final = "aii.refused"
_MOST_BYTES: Final = 2**20  # the largest request, an extraction of 1,000 images, has a tenth
_DEEPEST: Final = 100  # a request is nested five times
_SHOWN: Final = 1_000  # characters of the request in Flower


class Unusable(Exception):
    """Why an element is no message. `job_id` is that of a job that can be told so."""

    def __init__(self, reason: str, job_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.job_id = job_id


@dataclass(frozen=True)
class Envelope:
    """A message as far as a job consists of it; the request is not validated yet and may be anything."""

    job_id: str
    task: str
    request: Any

    def for_celery(self, queue: str) -> dict[str, Any]:
        """The message as kombu and Celery expect it (protocol 2)."""
        body = json.dumps([[], {"request": self.request}, {}]).encode()
        return {
            "body": base64.b64encode(body).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {
                "lang": "py", "task": self.task, "id": self.job_id, "root_id": self.job_id, "parent_id": None,
                "argsrepr": "()", "kwargsrepr": json.dumps(self.request)[:_SHOWN], "retries": 0, "eta": None,
                "expires": None, "timelimit": [None, None], "ignore_result": True,
            },
            "properties": {
                "correlation_id": self.job_id, "body_encoding": "base64", "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": queue},
                # A sender's own may be another message's, which would be acknowledged with it.
                "delivery_tag": str(uuid.uuid4()),
            },
        }  # fmt: skip


def read_envelope(raw: bytes, queue: str) -> Envelope:
    """Read an element of a queue's list.

    Raises:
        Unusable: no job can be made of it.
    """
    if len(raw) > _MOST_BYTES:
        raise Unusable(f"The message has {len(raw):,} bytes; at most {_MOST_BYTES:,} are read.")
    message = _json(raw, "The message")
    if not isinstance(message, dict):
        raise Unusable("The message is no JSON object.")
    headers = message.get("headers")
    headers = headers if isinstance(headers, dict) else {}
    job_id = _job_id(headers.get("id"))
    body = _body(message, headers, job_id)
    # Celery's older protocol has all in the body.
    said = body if isinstance(body, dict) and "task" not in headers else headers
    job_id = _job_id(said.get("id"))
    task = said.get("task")
    if not isinstance(task, str) or QUEUE_OF_TASK.get(task) != base_queue(queue):
        raise Unusable(f"The queue {queue} has no jobs of the task {str(task)[:80]!r}.", job_id)
    request = _request(body, job_id)
    return Envelope(job_id or _id_of(task, request), task, request)


def _body(message: dict[str, Any], headers: dict[str, Any], job_id: str | None) -> Any:
    body, properties = message.get("body"), message.get("properties")
    encoding = properties.get("body_encoding") if isinstance(properties, dict) else None
    if not isinstance(body, str):
        raise Unusable("The message's body is no text.", job_id)
    if headers.get("compression") or message.get("content-type", "application/json") != "application/json":
        raise Unusable("The message's body is no plain JSON.", job_id)
    try:
        data = base64.b64decode(body, validate=True) if encoding == "base64" else body.encode()
    except ValueError:
        raise Unusable("The message's body is no base64.", job_id) from None
    value = _json(data, "The message's body", job_id)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        raise Unusable("The message's body has text that is no Unicode.", job_id) from None
    return value


def _request(body: Any, job_id: str | None) -> Any:
    """The one argument of a task, by name or alone."""
    if isinstance(body, dict) and ("args" in body or "kwargs" in body):
        args, named = body.get("args"), body.get("kwargs")
    elif isinstance(body, list) and len(body) >= 2:
        args, named = body[0], body[1]
    else:
        raise Unusable("The message's body has no arguments.", job_id)
    if isinstance(named, dict) and "request" in named:
        return named["request"]
    return args[0] if isinstance(args, list) and args else None


def _job_id(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    if re.fullmatch(JOB_ID_PATTERN, value):
        return value
    return sha256_hex(value.encode(errors="surrogatepass"))[:32]


def _id_of(task: str, request: Any) -> str:
    """The id that follows from a request that can be used; the end of another could be found by no one."""
    model = next(kind.request for kind in KINDS if kind.task == task)
    try:
        return validated(model, request).job_id
    except AiiError as error:
        raise Unusable(f"The message names no job, and its request cannot be used: {error.message}") from None


def _json(data: bytes, what: str, job_id: str | None = None) -> Any:
    """Whatever is nested too deeply is refused too: what comes after this may have less of the stack left."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{what} cannot be read as JSON ({type(error).__name__}).", job_id) from None
    if not _is_shallow(value):
        raise Unusable(f"{what} is nested more than {_DEEPEST} times.", job_id)
    return value


def _is_shallow(value: Any) -> bool:
    inside = [value]
    for _ in range(_DEEPEST):
        parts = (part.values() if isinstance(part, dict) else part for part in inside if isinstance(part, dict | list))
        if not (inside := [one for some in parts for one in some]):
            return True
    return False
