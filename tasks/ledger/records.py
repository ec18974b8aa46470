"""Jobs and queues as the ledger gives them out, and what it keeps of a request."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

from tasks.errors import BadInput
from tasks.kinds import QUEUE_OF_TASK, REQUEST_OF_TASK
from tasks.ledger.states import JobState
from tasks.messages import validated
from tasks.names import LONGEST_ASSET_ID
from tasks.results import FailureResult, Result

__all__ = ["JobRecord", "QueuePlaces", "Resend", "record_of", "record_of_result", "submit_args"]


@dataclass(frozen=True)
class JobRecord:
    """One job as the ledger knows it; times are seconds since the epoch, on Redis' clock.

    Attributes:
        asset_id, name: of an activation; the name is "" when the request had none.
        collection: "" for a job that version 0.1.0 submitted.
        superseded_by: the job that activated the asset after this one.
        removed_at: when the asset was removed from its collection after this job.
        commits: how often it ended; each time has a document of its own.
    """

    job_id: str
    state: JobState
    task: str
    queue: str
    attempts: int
    submitted_at: float
    finished_at: float | None
    asset_id: str | None
    worker: str | None
    error_code: str | None
    error_message: str | None
    name: str = ""
    superseded_by: str | None = None
    removed_at: float | None = None
    commits: int = 0
    collection: str = ""

    @property
    def outdated(self) -> str:
        """Why a job that ended well is not current any more, in words; "" for one that is, or that did not."""
        if self.state is not JobState.DONE or self.current:
            return ""
        return f"superseded by {self.superseded_by}" if self.superseded_by else "removed since"

    @property
    def current(self) -> bool:
        """Whether the job's effect is as it left it: done, and its asset neither activated again nor removed since."""
        return self.state is JobState.DONE and self.superseded_by is None and self.removed_at is None


@dataclass(frozen=True)
class QueuePlaces:
    """A queue as the ledger and its messages have it.

    Attributes:
        messages: waiting in Redis.
        seq: the last place given out.
        head: the furthest place started.
        due: some of the jobs that were put off, and whose pause is over.
    """

    messages: int
    seq: int
    head: int
    due: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resend:
    """A message that has to be sent (again)."""

    job_id: str
    task: str
    queue: str
    payload: str


def record_of(job_id: str, fields: dict[str, str]) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        state=JobState(fields["state"]),
        task=fields["task"],
        queue=fields["queue"],
        attempts=int(fields["attempts"]),
        submitted_at=int(fields["submitted_ms"]) / 1000,
        finished_at=int(fields["finished_ms"]) / 1000 if "finished_ms" in fields else None,
        asset_id=fields.get("asset") or submit_args("", "", fields.get("payload", "null"))[3] or None,
        worker=fields.get("worker"),
        error_code=fields.get("error_code"),
        error_message=fields.get("error_message"),
        name=fields.get("name", ""),
        superseded_by=fields.get("superseded_by"),
        removed_at=int(fields["removed_ms"]) / 1000 if "removed_ms" in fields else None,
        commits=int(fields.get("commits", 0)),
        collection=fields.get("collection", ""),
    )


def record_of_result(result: Result) -> JobRecord:
    """A job that the ledger has forgotten, as far as its document tells: when it was submitted is not known, and its
    end is given instead."""
    ended = datetime.datetime.fromisoformat(result.provenance.finished_at).timestamp()
    failure = result if isinstance(result, FailureResult) else None
    return JobRecord(
        job_id=result.job_id,
        state=JobState.FAILED if failure else JobState.DONE,
        task=result.task,
        queue=QUEUE_OF_TASK.get(result.task, ""),
        attempts=0,
        submitted_at=ended,
        finished_at=ended,
        asset_id=getattr(result, "asset_id", None),
        worker=result.provenance.worker,
        error_code=failure.code if failure else None,
        error_message=failure.message if failure else None,
        name=getattr(result, "name", ""),
        collection=getattr(result, "collection", ""),
    )


def submit_args(job_id: str, task: str, payload: str, retry: str = "") -> list[str]:
    """What the script that opens jobs is told of each, and keeps of the payload; that is not validated yet and can hold
    anything."""
    said = json.loads(payload)
    fields = said if isinstance(said, dict) else {}
    asset_id, name, collection = (_text(fields.get(field)) for field in ("asset_id", "name", "collection"))
    replace = "1" if fields.get("replace") is True else ""
    return [job_id, task, payload, asset_id, name, replace, retry, collection, _digest(task, fields)]


def _digest(task: str, fields: dict[str, Any]) -> str:
    """Of a request with an idempotency key, by which another one under that key is refused; "" for any other."""
    model = REQUEST_OF_TASK.get(task)
    try:
        return validated(model, fields).digest if model and fields.get("idempotency_key") else ""
    except BadInput:
        return ""


def _text(value: Any) -> str:
    return value[:LONGEST_ASSET_ID] if isinstance(value, str) else ""
