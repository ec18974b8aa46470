"""A store and a ledger in memory, with the methods that a producer uses."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tasks.errors import AiiError, Cancelled, DigestMismatch, JobMissing, ObjectMissing, TooLarge
from tasks.ledger.batch_delay import BatchDelay
from tasks.ledger.events import JobEvent, subject_of
from tasks.ledger.records import JobRecord, Resend
from tasks.ledger.states import JobState
from tasks.ledger.waiting import Receiver
from tasks.messages import Request
from tasks.names import canonical_json, check_key, result_key, sha256_hex
from tasks.results import FailureResult, Result
from tasks.shares import share_queue
from tasks.storage import Bucket

__all__ = ["MemoryLedger", "MemoryStore"]


class MemoryStore:
    """Objects of our buckets, and of others from which images are read."""

    def __init__(self) -> None:
        self._objects: dict[tuple[Bucket, str], bytes] = {}
        self.sources: dict[tuple[str, str], bytes] = {}

    def check(self) -> None:
        pass

    def put(self, bucket: Bucket, key: str, data: bytes, content_type: str) -> None:  # as the real one
        self._objects[bucket, check_key(key)] = data

    def exists(self, bucket: Bucket, key: str) -> bool:
        return (bucket, check_key(key)) in self._objects

    def get(self, bucket: Bucket, key: str, max_bytes: int) -> bytes:
        return _limited(self._objects.get((bucket, check_key(key))), key, max_bytes)

    def get_verified(self, bucket: Bucket, key: str, sha256: str, max_bytes: int) -> bytes:
        data = self.get(bucket, key, max_bytes)
        if sha256_hex(data) != sha256:
            raise DigestMismatch(f"The bytes at {key} are not those that were submitted: submit the image again.")
        return data

    def get_source(self, bucket: str, key: str, max_bytes: int) -> bytes:
        return _limited(self.sources.get((bucket, key)), f"s3://{bucket}/{key}", max_bytes)

    def list_keys(self, bucket: Bucket, folder: str = "") -> Iterator[str]:
        yield from [key for where, key in list(self._objects) if where is bucket and key.startswith(folder)]


def _limited(data: bytes | None, name: str, max_bytes: int) -> bytes:
    if data is None:
        raise ObjectMissing(f"There is no object {name} in the store.")
    if len(data) > max_bytes:
        raise TooLarge(f"{name} is larger than the limit of {max_bytes:,} bytes.")
    return data


@dataclass
class _Job:
    request: Request
    record: JobRecord


class MemoryLedger:
    """Jobs, each done as soon as it is submitted, unless it is held."""

    def __init__(
        self, work: Callable[[str, Request, AiiError | None], Result], store: MemoryStore, *, hold: bool
    ) -> None:
        self._work = work
        self._store = store
        self._hold = hold
        self._jobs: dict[str, _Job] = {}
        self._receivers: list[tuple[frozenset[str], Receiver]] = []
        self._errors: list[AiiError] = []
        self._lock = threading.RLock()
        self.completions = self
        self.batch_delay = BatchDelay()

    # ── what a producer asks ─────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        pass

    def disconnect(self) -> None:
        pass

    def submit(self, requests: Sequence[Request], job_ids: Sequence[str] | None = None, client: str = "") -> list[bool]:
        ids = job_ids or [request.job_id for request in requests]
        with self._lock:
            return [self._submit(request, job_id, client) for request, job_id in zip(requests, ids, strict=True)]

    def get(self, job_id: str) -> JobRecord:
        with self._lock:
            if job_id not in self._jobs:
                raise JobMissing(f"The ledger knows no job {job_id}: submit it again.")
            return self._jobs[job_id].record

    def stored(self, job_id: str) -> Resend | None:
        job = self._jobs.get(job_id)
        if job is None:
            return None
        payload = canonical_json(job.request.message()).decode()
        return Resend(job_id, job.request.task, job.record.queue, payload)

    def said(self, job_id: str) -> str:
        job = self._jobs.get(job_id)
        return job.request.digest if job and job.request.idempotency_key else ""

    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        return [state for state, _ in self.states_and_places(job_ids)]

    def states_and_places(self, job_ids: Sequence[str]) -> list[tuple[JobState | None, int]]:
        with self._lock:
            return [(self._jobs[one].record.state, 1) if one in self._jobs else (None, 0) for one in job_ids]

    @contextmanager
    def watch(self, subjects: Iterable[str]) -> Iterator[queue.SimpleQueue[JobEvent]]:
        received = queue.SimpleQueue[JobEvent]()
        with self.watch_for(subjects, received):
            yield received

    @contextmanager
    def watch_for(self, subjects: Iterable[str], received: Receiver) -> Iterator[None]:
        entry = (frozenset(subjects), received)
        with self._lock:
            self._receivers.append(entry)
        try:
            yield
        finally:
            with self._lock:
                self._receivers = [one for one in self._receivers if one is not entry]

    # ── what tests decide ────────────────────────────────────────────────────────────────────────────────────────────

    def fail_next(self, error: AiiError) -> None:
        with self._lock:
            self._errors.append(error)

    def run(self) -> None:
        """Do what is held."""
        with self._lock:
            for job_id in [one for one, job in self._jobs.items() if not job.record.state.closed]:
                self.end(job_id, self._errors.pop(0) if self._errors else None)

    def end(self, job_id: str, error: AiiError | None = None) -> None:
        """End a job, with its document: as its work says, or with an error."""
        with self._lock:
            job = self._jobs[job_id]
            result = self._work(job_id, job.request, error)
            failed = isinstance(result, FailureResult)
            code, message = (result.code, result.message) if isinstance(result, FailureResult) else (None, None)
            ended = JobState.FAILED if failed else JobState.DONE
            state = JobState.CANCELLED if isinstance(error, Cancelled) else ended
            number = job.record.commits + 1
            document = result.model_dump_json().encode()
            self._store.put(Bucket.RESULTS, result_key(job_id, number), document, "application/json")
            job.record = replace(
                job.record, state=state, commits=number, finished_at=time.time(), attempts=1,
                error_code=code, error_message=message,
            )  # fmt: skip
            self._announce(job.record)

    def _submit(self, request: Request, job_id: str, client: str) -> bool:
        known = self._jobs.get(job_id)
        if known and known.record.state not in (JobState.FAILED, JobState.CANCELLED):
            return False
        said: dict[str, Any] = json.loads(canonical_json(request.message()))
        record = JobRecord(
            job_id=job_id, state=JobState.QUEUED, task=request.task, queue=share_queue(request.queue, client),
            attempts=0, submitted_at=time.time(), finished_at=None, asset_id=said.get("asset_id"), worker=None,
            error_code=None, error_message=None, name=said.get("name", ""),
            commits=known.record.commits if known else 0,
        )  # fmt: skip
        self._jobs[job_id] = _Job(request, record)
        if not self._hold:
            self.end(job_id, self._errors.pop(0) if self._errors else None)
        return True

    def _announce(self, record: JobRecord) -> None:
        subject, name = subject_of(record.job_id), record.state.value
        event = JobEvent(
            entry=f"{time.time_ns() // 1_000_000}-0", event_id=f"{subject}-{record.commits}-{name}",
            source="/aii/ledger", type=f"aii.job.{name}", subject=subject, state=record.state, task=record.task,
            document=record.commits, place=1, error_code=record.error_code or "",
        )  # fmt: skip
        for subjects, received in self._receivers:
            if subject in subjects:
                received.put(event)
