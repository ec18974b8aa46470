"""The ledger: which jobs were accepted, which worker runs them, and how they ended.

Celery over Redis can lose a message (celery#4354) and can deliver one twice; the ledger makes up for both. A
job is written here before its message is sent; a worker may act on it only while it holds the job's lease; a closed job
stays closed. Transitions are in :mod:`tasks.ledger.scripts`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tasks.connection import RedisClient, connect_redis
from tasks.errors import JobMissing
from tasks.ledger import scripts
from tasks.ledger.keys import (
    CLOSED_BOUND,
    COUNTS,
    LEASES,
    closed_key,
    head_key,
    job_key,
    open_key,
    seq_key,
    since_key,
    submit_keys,
)
from tasks.ledger.states import JobState
from tasks.messages import Request
from tasks.names import canonical_json
from tasks.settings import Settings

_MESSAGE_BOUND: Final = 2_000
_WINDOW: Final = 200
# Between two reads of the states of jobs that are waited for: a tenth of the time waited so far. A query does not
# notice that, and a thousand waiting producers do not keep Redis busy.
_SHORTEST_PAUSE_S: Final = 0.004
_LONGEST_PAUSE_S: Final = 0.1


class Claim(StrEnum):
    """The answer to a worker that wants to start a job."""

    CLAIMED = "claimed"
    MISSING = "missing"
    CLOSED = "closed"
    LEASED = "leased"
    EXHAUSTED = "exhausted"  # started too often; the lease is granted nevertheless, to close the job


@dataclass(frozen=True)
class JobRecord:
    """One job as the ledger knows it; times are seconds since the epoch, on Redis' clock.

    `asset_id` is known of an activation that is not done yet: the payload of a job that ended well is deleted.
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


@dataclass(frozen=True)
class Resend:
    """A message that has to be sent (again)."""

    job_id: str
    task: str
    queue: str
    payload: str


@dataclass(frozen=True)
class QueueState:
    """A queue's messages waiting in Redis, the last place given out, and the furthest place started."""

    messages: int
    seq: int
    head: int


class Ledger:
    """Thread-safe; every method raises RedisUnavailable when Redis cannot be used. Transitions are atomic."""

    def __init__(self, client: RedisClient, *, lease_s: float, max_attempts: int, keep_closed_s: int) -> None:
        self._client = client
        self._lease_ms = int(lease_s * 1000)
        self._max_attempts = max_attempts
        self._keep_closed_s = keep_closed_s
        self._submit = client.register_script(scripts.SUBMIT)
        self._claim = client.register_script(scripts.CLAIM)
        self._renew = client.register_script(scripts.RENEW)
        self._publish = client.register_script(scripts.PUBLISH)
        self._close = client.register_script(scripts.CLOSE)
        self._requeue = client.register_script(scripts.REQUEUE)
        self._resend = client.register_script(scripts.RESEND)
        self._states = client.register_script(scripts.STATES)

    @classmethod
    def connect(cls, settings: Settings) -> Ledger:
        return cls(
            connect_redis(settings),
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            keep_closed_s=settings.keep_closed_s,
        )

    def disconnect(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._client.close()

    @property
    def max_attempts(self) -> int:
        return self._max_attempts

    def check(self) -> None:
        """Raise RedisUnavailable unless Redis answers and lets us in."""
        self._client.ping()

    # ── producers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, requests: Sequence[Request]) -> list[bool]:
        """Write jobs and their places in the queue; True for those that are new and whose message must now be sent."""
        pipe = self._client.pipeline(transaction=True)
        for request in requests:
            self._write(pipe, request.job_id, request.task, request.queue, request.model_dump(mode="json"))
        return [bool(answer[0]) for answer in pipe.execute()]

    def _write(self, client: RedisClient, job_id: str, task: str, queue: str, payload: Any) -> None:
        args = [job_id, task, queue, canonical_json(payload).decode()]
        self._submit(keys=submit_keys(job_id, queue), args=args, client=client)

    def get(self, job_id: str) -> JobRecord:
        """Raises JobMissing: never submitted here, or forgotten since."""
        fields: dict[str, str] = self._client.hgetall(job_key(job_id))
        if not fields:
            raise JobMissing(f"The ledger knows no job {job_id}: submit it again.")
        return record_of(job_id, fields)

    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """The state of each job, in order; None for a job the ledger does not know."""
        states = self._states(keys=[job_key(job_id) for job_id in job_ids])
        return [JobState(state) if state else None for state in states]

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, job_id: str, queue: str, token: str, worker: str) -> Claim:
        """Try to start a job: counts the attempt and takes the lease under `token`."""
        answer = self._claim(
            keys=[job_key(job_id), open_key(queue), head_key(queue), LEASES, since_key(queue)],
            args=[job_id, token, self._lease_ms, self._max_attempts, worker],
        )
        return Claim(answer)

    def adopt(self, job_id: str, task: str, queue: str, payload: Any) -> None:
        """Add a job whose message was delivered although the ledger does not know it; the payload may be anything."""
        self._write(self._client, job_id, task, queue, payload)

    def renew(self, leases: dict[str, str]) -> list[str]:
        """Extend the leases ``{job_id: token}``; returns the jobs that are no longer the caller's."""
        if not leases:
            return []
        flat = [part for pair in leases.items() for part in pair]
        keys = [LEASES, *(job_key(job_id) for job_id in leases)]
        return [str(job_id) for job_id in self._renew(keys=keys, args=[self._lease_ms, *flat])]

    def holds(self, job_id: str, token: str) -> bool:
        """Whether the job still runs under that token: it was neither taken over nor cancelled."""
        return bool(self._client.hget(job_key(job_id), "token") == token)

    def begin_publishing(self, job_id: str, token: str) -> bool:
        """Ask to make effects that others see: from now on the job cannot be cancelled. False when it no longer runs
        under that token."""
        return bool(self._publish(keys=[job_key(job_id)], args=[token]))

    def close(self, job_id: str, token: str, state: JobState, code: str = "", message: str = "") -> bool:
        """End a job; False when the lease was lost and another worker ends it."""
        answer = self._close(
            keys=[job_key(job_id), LEASES, closed_key(state), COUNTS],
            args=[job_id, token, state, code, message[:_MESSAGE_BOUND], self._keep_closed_s, CLOSED_BOUND],
        )
        return bool(answer)

    # ── the reconciler ───────────────────────────────────────────────────────────────────────────────────────────────

    def expired(self, limit: int = 500) -> list[str]:
        """Running jobs whose lease ran out."""
        now_ms = self._now_ms()
        return list(self._client.zrangebyscore(LEASES, "-inf", now_ms, start=0, num=limit))

    def requeue(self, job_id: str, token: str = "") -> Resend | None:
        """Put a running job back into its queue: one whose lease ran out, or one that the holder of `token` gives
        up."""
        queue = self._field(job_id, "queue")
        if queue is None:
            self._client.zrem(LEASES, job_id)
            return None
        keys = [job_key(job_id), LEASES, open_key(queue), seq_key(queue), COUNTS, since_key(queue)]
        return _resend_of(job_id, self._requeue(keys=keys, args=[job_id, token]))

    def queue_state(self, queue: str) -> QueueState:
        pipe = self._client.pipeline(transaction=True)
        messages, seq, head = pipe.llen(queue).get(seq_key(queue)).get(head_key(queue)).execute()
        return QueueState(messages=messages, seq=int(seq or 0), head=int(head or 0))

    def waiting_up_to(self, queue: str, place: int, limit: int = 500) -> list[tuple[str, int]]:
        """Jobs still queued at or before a place, first come first: ``(job_id, place)``."""
        pairs: Iterable[tuple[str, float]] = self._client.zrangebyscore(
            open_key(queue), "-inf", place, start=0, num=limit, withscores=True
        )
        return [(job_id, int(score)) for job_id, score in pairs]

    def resend(self, job_id: str, queue: str, place: int) -> Resend | None:
        """Give a queued job whose message is gone a new place; None when its state or place has changed."""
        keys = [job_key(job_id), open_key(queue), seq_key(queue), COUNTS]
        return _resend_of(job_id, self._resend(keys=keys, args=[job_id, place]))

    def _field(self, job_id: str, name: str) -> str | None:
        value = self._client.hget(job_key(job_id), name)
        return str(value) if value is not None else None

    def _now_ms(self) -> int:
        seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000


def wait_until_closed(
    ledger: Ledger, job_ids: Sequence[str], timeout_s: float | None
) -> Iterable[tuple[str, JobState | None]]:
    """Yield ``(job_id, state)`` as jobs close, in any order; a job the ledger forgot comes with None.

    Ends silently when `timeout_s` is over: what was not yielded is still open.
    """
    pending = list(dict.fromkeys(job_ids))
    began = time.monotonic()
    while pending:
        # Queues are FIFO, so reading the first few hundred is enough, and bounds the cost of a long list.
        window = pending[:_WINDOW]
        closed = [(j, s) for j, s in zip(window, ledger.states(window), strict=True) if s is None or s.closed]
        yield from closed
        gone = {job_id for job_id, _ in closed}
        pending = [job_id for job_id in pending if job_id not in gone]
        waited_s = time.monotonic() - began
        if timeout_s is not None and waited_s >= timeout_s:
            return
        if pending and not closed:
            time.sleep(min(max(waited_s / 10, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S))


def record_of(job_id: str, fields: dict[str, str]) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        state=JobState(fields["state"]),
        task=fields["task"],
        queue=fields["queue"],
        attempts=int(fields["attempts"]),
        submitted_at=int(fields["submitted_ms"]) / 1000,
        finished_at=int(fields["finished_ms"]) / 1000 if "finished_ms" in fields else None,
        asset_id=_asset_of(fields.get("payload", "null")),
        worker=fields.get("worker"),
        error_code=fields.get("error_code"),
        error_message=fields.get("error_message"),
    )


def _asset_of(payload: str) -> str | None:
    """The asset that a payload names. A payload is not validated yet and can hold anything."""
    said = json.loads(payload)
    asset_id = said.get("asset_id") if isinstance(said, dict) else None
    return asset_id if isinstance(asset_id, str) else None


def _resend_of(job_id: str, answer: Any) -> Resend | None:
    return Resend(job_id, *answer) if answer else None
