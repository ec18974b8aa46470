"""What operators ask of the ledger and do to it: figures, lists, retrying and cancelling jobs."""

from __future__ import annotations

import datetime
from typing import Any

import redis

from tasks import ledger_scripts as scripts
from tasks.connection import connect_redis, named_errors, redis_address
from tasks.documents import write_result
from tasks.errors import Cancelled, Conflict, JobMissing
from tasks.ledger import JobRecord, JobState, Resend, record_of
from tasks.ledger_keys import CLOSED, CLOSED_BOUND, COUNTS, LEASES, job_key, open_key, seq_key
from tasks.names import QUEUES
from tasks.results import FailureResult, Provenance
from tasks.settings import Settings
from tasks.storage import ObjectStore

__all__ = ["Operations"]

_LOOKED_AT = 1_000


class Operations:
    """Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: redis.Redis, address: str, keep_closed_s: int) -> None:
        self._client = client
        self._address = address
        self._keep_closed_s = keep_closed_s
        self._cancel = client.register_script(scripts.CANCEL)
        self._submit = client.register_script(scripts.SUBMIT)

    @classmethod
    def connect(cls, settings: Settings) -> Operations:
        return cls(connect_redis(settings), redis_address(settings), settings.keep_closed_s)

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def counts(self) -> dict[str, int]:
        """Counters since the ledger began: submitted, done, failed, cancelled, resent_lease, resent_lost."""
        with named_errors(self._address):
            return {name: int(value) for name, value in self._client.hgetall(COUNTS).items()}

    def running(self) -> int:
        with named_errors(self._address):
            return int(self._client.zcard(LEASES))

    def waiting(self, queue: str) -> tuple[int, float | None]:
        """How many jobs wait in a queue, and for how many seconds the first of them has."""
        with named_errors(self._address):
            count = int(self._client.zcard(open_key(queue)))
            first: list[str] = self._client.zrange(open_key(queue), 0, 0)
            submitted_ms = self._client.hget(job_key(first[0]), "submitted_ms") if first else None
            seconds, micros = self._client.time()
        if not submitted_ms:
            return count, None
        return count, max(0.0, seconds + micros / 1e6 - int(submitted_ms) / 1000)

    # ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def jobs(self, state: JobState, limit: int) -> list[JobRecord]:
        """Jobs in one state: waiting ones first come first, the others newest first; of closed ones the latest."""
        with named_errors(self._address):
            records = self._records(self._ids(state, limit))
        return [record for record in records if record.state is state][:limit]

    def recent_failures(self, limit: int = 5) -> list[JobRecord]:
        """The last failed jobs among the lately closed ones, newest first."""
        return self.jobs(JobState.FAILED, limit)

    def job(self, job_id: str) -> JobRecord:
        """Raises JobMissing."""
        with named_errors(self._address):
            records = self._records([job_id])
        if not records:
            raise JobMissing(f"The ledger knows no job {job_id}: look for it with `aii jobs list`.")
        return records[0]

    def _ids(self, state: JobState, limit: int) -> list[str]:
        if state is JobState.QUEUED:
            return [job for queue in QUEUES for job in self._client.zrange(open_key(queue), 0, limit - 1)]
        if state is JobState.RUNNING:
            return list(self._client.zrevrange(LEASES, 0, limit - 1))
        return list(self._client.zrevrange(CLOSED, 0, _LOOKED_AT - 1))

    def _records(self, job_ids: list[str]) -> list[JobRecord]:
        pipe = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hgetall(job_key(job_id))
        return [record_of(job, fields) for job, fields in zip(job_ids, pipe.execute(), strict=True) if fields]

    # ── deeds ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def retry(self, job_id: str) -> Resend:
        """Open a failed or cancelled job again; returns the message that is to be sent.

        Raises:
            JobMissing: there is no such job.
            Conflict: it did not fail, or what it was asked is no longer known.
        """
        record = self.job(job_id)
        with named_errors(self._address):
            payload: Any = self._client.hget(job_key(job_id), "payload")
            if record.state not in (JobState.FAILED, JobState.CANCELLED) or payload is None:
                raise Conflict(f"Job {job_id} is {record.state}: only failed and cancelled jobs can be retried.")
            keys = [job_key(job_id), open_key(record.queue), seq_key(record.queue), COUNTS]
            self._submit(keys=keys, args=[job_id, record.task, record.queue, payload])
        return Resend(job_id, record.task, record.queue, payload)

    def cancel(self, job_id: str, store: ObjectStore) -> JobState:
        """End an open job; who waits for it is told so. Returns the state it was in.

        A worker that is at it leaves it before its next effect: nothing half done is published.

        Raises:
            JobMissing: there is no such job.
            Conflict: it has ended already.
        """
        record = self.job(job_id)
        with named_errors(self._address):
            keys = [job_key(job_id), open_key(record.queue), LEASES, CLOSED, COUNTS]
            before = self._cancel(keys=keys, args=[job_id, self._keep_closed_s, CLOSED_BOUND])
        if before is None:
            raise Conflict(f"Job {job_id} is {record.state}: it has ended already.")
        write_result(store, job_id, _cancelled(record))
        return JobState(before)


def _cancelled(record: JobRecord) -> FailureResult:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    provenance = Provenance(worker="", device="", versions={}, timings_ms={}, finished_at=now)
    message = "Cancelled by an operator: submit it again, or `aii jobs retry` it."
    return FailureResult(
        task=record.task, job_id=record.job_id, code=Cancelled.code, message=message, provenance=provenance
    )
