"""What operators read from the ledger and change in it: figures, lists, retrying and cancelling jobs."""

from __future__ import annotations

import datetime
import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tasks.connection import RedisClient, connect_redis
from tasks.documents import last_commit, write_result
from tasks.errors import Cancelled, Conflict, InvalidRequest, JobMissing
from tasks.ledger import scripts
from tasks.ledger.keys import (
    CLOSED_BOUND,
    COUNTS,
    EVENTS,
    LEASES,
    closed_key,
    job_key,
    later_key,
    open_key,
    since_key,
    submit_keys,
)
from tasks.ledger.records import JobRecord, Resend, record_of, submit_args
from tasks.ledger.states import JobState
from tasks.names import JOB_ID_PATTERN, OWN_JOB_ID_PATTERN
from tasks.results import FailureResult, Provenance
from tasks.settings import Settings
from tasks.shares import ALL_QUEUES, base_queue, queues_of
from tasks.storage import ObjectStore

__all__ = ["Operations"]

logger = logging.getLogger(__name__)

_SHORTEST_PART: Final = 4  # of a job's id


class Operations:
    """Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient, keep_closed_s: int) -> None:
        self._client = client
        self._keep_closed_s = keep_closed_s
        self._cancel = client.register_script(scripts.CANCEL)
        self._announce = client.register_script(scripts.ANNOUNCE)
        self._submit = client.register_script(scripts.SUBMIT)

    @classmethod
    def connect(cls, settings: Settings) -> Operations:
        return cls(connect_redis(settings), settings.keep_closed_s)

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def counts(self) -> dict[str, int]:
        """Counters since the ledger began: submitted, done, failed, cancelled, resent_lease, resent_lost, dead."""
        return {name: int(value) for name, value in self._client.hgetall(COUNTS).items()}

    def running(self) -> int:
        return int(self._client.zcard(LEASES))

    def running_by_queue(self) -> Counter[str]:
        """How many jobs of each queue run; those of share queues count for theirs."""
        pipe = self._client.pipeline(transaction=False)
        for job_id in self._client.zrange(LEASES, 0, -1):
            pipe.hget(job_key(job_id), "queue")
        names = pipe.execute(raise_on_error=False)
        return Counter(base_queue(name) for name in names if isinstance(name, str))

    def waiting(self, queue: str) -> tuple[int, float | None]:
        """How many jobs wait in a queue and its share queues, and for how many seconds the one that was submitted first
        has."""
        pipe = self._client.pipeline(transaction=True)
        for name in queues_of(queue):
            pipe.zcard(open_key(name)).zcard(later_key(name)).zrange(since_key(name), 0, 0, withscores=True)
        *answers, (seconds, micros) = pipe.time().execute()
        count = sum(answers[::3]) + sum(answers[1::3])
        first_ms = [oldest[0][1] for oldest in answers[2::3] if oldest]
        return count, max(0.0, seconds + micros / 1e6 - min(first_ms) / 1000) if first_ms else None

    def failed(self) -> int:
        """How many failed jobs are kept, and can be retried."""
        return int(self._client.zcard(closed_key(JobState.FAILED)))

    # ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def jobs(self, state: JobState, limit: int) -> list[JobRecord]:
        """Jobs in one state: waiting ones first come first, the others newest first."""
        records = self.records(self._ids(state, limit))
        return [record for record in records if record.state is state][:limit]

    def job(self, job_id: str) -> JobRecord:
        """Raises JobMissing."""
        records = self.records([job_id])
        if not records:
            raise JobMissing(f"The ledger knows no job {job_id}: search for it with `aii jobs list`.")
        return records[0]

    def find(self, part: str) -> str:
        """The id of the one job that begins with these characters, among those that :meth:`jobs` lists; a whole id is
        given back as it is.

        Raises:
            JobMissing: there is none.
            InvalidRequest: there are several, or it is no part of a job id.
        """
        if re.fullmatch(OWN_JOB_ID_PATTERN, part) or (re.fullmatch(JOB_ID_PATTERN, part) and self._known(part)):
            return part
        if len(part) < _SHORTEST_PART or not re.fullmatch(JOB_ID_PATTERN, part):
            raise InvalidRequest(f"{part!r} is no job id: at least its first {_SHORTEST_PART} characters are needed.")
        lists = [
            *map(open_key, ALL_QUEUES),
            *map(later_key, ALL_QUEUES),
            LEASES,
            *(closed_key(state) for state in JobState if state.closed),
        ]
        found = sorted({job for key in lists for job, _ in self._client.zscan_iter(key, f"{part}*", count=1_000)})
        if not found:
            raise JobMissing(f"The ledger lists no job {part}…: give the whole id, or find it with `aii jobs list`.")
        if len(found) > 1:
            raise InvalidRequest(f"{len(found)} jobs begin with {part}, {found[0]} and {found[1]} among them.")
        return str(found[0])

    def _known(self, job_id: str) -> bool:
        return bool(self._client.exists(job_key(job_id)))

    def outdated(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Those of some jobs whose asset is not as they left it, and why."""
        records = self.records(list(job_ids))
        return {record.job_id: record.outdated for record in records if record.outdated}

    def published(self, job_ids: Sequence[str]) -> dict[str, int]:
        """The number of the latest document of each of some jobs; 0 where that is unknown."""
        pipe = self._client.pipeline(transaction=True)
        for job_id in job_ids:
            pipe.hget(job_key(job_id), "commits").hexists(job_key(job_id), "document")
        answers = pipe.execute(raise_on_error=False)
        pairs = zip(job_ids, answers[::2], answers[1::2], strict=True)
        return {job: int(n) - bool(open_) if isinstance(n, str) and n.isdigit() else 0 for job, n, open_ in pairs}

    def _ids(self, state: JobState, limit: int) -> list[str]:
        if state is JobState.QUEUED:
            lists = [key(queue) for queue in ALL_QUEUES for key in (open_key, later_key)]
            return [job for name in lists for job in self._client.zrange(name, 0, limit - 1)]
        if state is JobState.RUNNING:
            return list(self._client.zrevrange(LEASES, 0, limit - 1))
        return list(self._client.zrevrange(closed_key(state), 0, limit - 1))

    def records(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Those of some jobs that the ledger knows, in their order."""
        pipe = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hgetall(job_key(job_id))
        answers = zip(job_ids, pipe.execute(raise_on_error=False), strict=True)
        return [record for job, fields in answers if fields and (record := _readable(job, fields))]

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def retry(self, job_id: str) -> Resend:
        """Open a failed or cancelled job again; returns the message that is to be sent.

        Raises:
            JobMissing: there is no such job.
            Conflict: it did not fail, or its payload is no longer kept.
        """
        record = self.job(job_id)
        payload: Any = self._client.hget(job_key(job_id), "payload")
        if record.state not in (JobState.FAILED, JobState.CANCELLED) or payload is None:
            raise Conflict(f"Job {job_id} is {record.state}: only failed and cancelled jobs can be retried.")
        args = [record.queue, *submit_args(job_id, record.task, payload, retry="1")]
        ((opened, state),) = self._submit(keys=submit_keys(record.queue, [job_id]), args=args)
        if not opened:
            raise Conflict(f"Job {job_id} is {state}: another command has just retried it.")
        return Resend(job_id, record.task, record.queue, payload)

    def cancel(self, job_id: str, store: ObjectStore) -> JobState:
        """Cancel an open job; producers that wait for it get a result document. Returns the state it was in.

        A worker that runs it notices before it publishes anything.

        Raises:
            JobMissing: there is no such job.
            Conflict: it has ended already, or is just being published.
        """
        record = self.job(job_id)
        lists = [
            open_key(record.queue),
            LEASES,
            closed_key(JobState.CANCELLED),
            COUNTS,
            since_key(record.queue),
            EVENTS,
        ]
        args = [job_id, self._keep_closed_s, CLOSED_BOUND, last_commit(store, job_id)]
        answer = self._cancel(keys=[job_key(job_id), *lists], args=args)
        if answer is None:
            raise Conflict(f"Job {job_id} has ended already.")
        if answer == ["publishing"]:
            raise Conflict(f"Job {job_id} is just being published: it ends in a moment.")
        before, number, task, place = answer
        write_result(store, job_id, _cancelled(record), int(number))
        cancelled = JobState.CANCELLED.value
        self._announce(keys=[EVENTS], args=[job_id, cancelled, task, number, place, Cancelled.code])
        return JobState(before)


def _readable(job_id: str, fields: Any) -> JobRecord | None:
    """None for a record of another version, or damaged: one of those must not hide the others."""
    try:
        return record_of(job_id, fields)
    except (KeyError, ValueError, TypeError):
        logger.warning("The ledger's record of job %s cannot be read", job_id)
        return None


def _cancelled(record: JobRecord) -> FailureResult:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    provenance = Provenance(worker="", device="", versions={}, timings_ms={}, finished_at=now)
    message = "Cancelled by an operator: submit it again, or `aii jobs retry` it."
    return FailureResult(
        task=record.task, job_id=record.job_id, code=Cancelled.code, message=message, provenance=provenance
    )
