"""The stream of events by which those who wait for jobs hear of their ends, each a CloudEvent (version 1.0).

Written by the scripts that close a job (:mod:`tasks.ledger.shared_scripts`), in the same transaction. An event does not
name its job: producers who share a Redis could find each other's jobs by it. Its `subject` is a digest of the job's id,
which the one who knows the id can make (:func:`subject_of`).

The stream is bounded, so a reader that falls far behind misses events; the ledger knows the truth.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks.connection import RedisClient
from tasks.ledger.keys import EVENTS
from tasks.ledger.states import JobState

__all__ = ["BEGINNING", "EventLog", "JobEvent", "subject_of"]

BEGINNING: Final = "0-0"
_MOST_READ: Final = 1_000


@dataclass(frozen=True)
class JobEvent:
    """A job has ended.

    Attributes:
        entry: of the stream, ``milliseconds-number``, in ascending order.
        event_id: the same for the same end of the same job: what is delivered twice can be told by it.
        subject: see :func:`subject_of`.
        document: the number of its result document, which is `document_key(job_id, document)`; 0 where it has none.
        place: its last place in the queue; a job that is opened again gets a later one.
        error_code: of a failed job, otherwise "".
    """

    entry: str
    event_id: str
    source: str
    type: str
    subject: str
    state: JobState
    task: str
    document: int
    place: int
    error_code: str

    @property
    def time(self) -> datetime.datetime:
        """When it ended, on Redis' clock, to the millisecond."""
        return datetime.datetime.fromtimestamp(int(self.entry.partition("-")[0]) / 1000, datetime.UTC)

    def cloud_event(self) -> dict[str, Any]:
        """The event in CloudEvents' JSON format (structured mode, ``application/cloudevents+json``)."""
        data = {"state": self.state.value, "task": self.task, "document": self.document, "error_code": self.error_code}
        return {
            "specversion": "1.0",
            "id": self.event_id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data,
        }


class EventLog:
    """Reads the stream. Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def last_entry(self) -> str:
        """The newest entry: what is read after it has happened since."""
        newest = self._client.xrevrange(EVENTS, count=1)
        return str(newest[0][0]) if newest else BEGINNING

    def read_after(self, entry: str, wait_ms: int) -> tuple[str, list[JobEvent]]:
        """The next events, oldest first, as soon as there is one; none when `wait_ms` are over. With them comes the
        entry to go on after, past records that cannot be read (of another version, perhaps)."""
        answer = self._client.xread({EVENTS: entry}, count=_MOST_READ, block=wait_ms)
        rows: Sequence[tuple[str, Mapping[str, str] | None]] = answer[0][1] if answer else []
        events = (_event_of(row, fields or {}) for row, fields in rows)
        return (rows[-1][0] if rows else entry), [event for event in events if event]


def subject_of(job_id: str) -> str:
    """By which a job's events are known: 40 hex digits, the SHA-1 of its id."""
    return hashlib.sha1(job_id.encode(), usedforsecurity=False).hexdigest()


def _event_of(entry: str, fields: Mapping[str, str]) -> JobEvent | None:
    try:
        data = json.loads(fields["data"])
        return JobEvent(
            entry=entry,
            event_id=fields["id"],
            source=fields["source"],
            type=fields["type"],
            subject=fields["subject"],
            state=JobState(data["state"]),
            task=data["task"],
            document=int(data["document"]),
            place=int(data["place"]),
            error_code=data["error_code"],
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
