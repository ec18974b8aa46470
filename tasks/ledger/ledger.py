"""The ledger: which jobs were accepted, which worker runs them, and how they ended.

Celery over Redis can lose a message (celery#4354) and can deliver one twice; the ledger makes up for both. A
job is written here before its message is sent; a worker may act on it only while it holds the job's lease; a closed job
stays closed. Transitions are in :mod:`tasks.ledger.scripts`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from tasks.connection import RedisClient, connect_redis
from tasks.errors import JobMissing, LeaseLost
from tasks.ledger import commit_scripts, scripts
from tasks.ledger.batch_delay import BatchDelay
from tasks.ledger.commits import Commit, Registration, Seen, conflict_of
from tasks.ledger.events import EventLog
from tasks.ledger.gathering import Gathering
from tasks.ledger.keys import LEASES, JournalKeys, job_key, submit_keys
from tasks.ledger.records import JobRecord, Resend, record_of, submit_args
from tasks.ledger.recovery import Recovery
from tasks.ledger.shared_calls import ClaimCall, CloseCall, CommitCall, PublishCall, SharedCalls
from tasks.ledger.states import Claim, JobState
from tasks.ledger.waiting import Completions
from tasks.messages import Request
from tasks.names import QUEUE_ACTIVATE, TASK_ACTIVATE, canonical_json
from tasks.settings import Settings
from tasks.shares import queues_of, share_queue

_MESSAGE_BOUND: Final = 2_000
_OPENED_AT_ONCE: Final = 100  # a script keeps all others waiting
# Between two attempts at a job that is put off; the longest is what it waits at most once a service is back.
_FIRST_DELAY_MS: Final = 1_000
_LONGEST_DELAY_MS: Final = 30_000
# How long a call may wait for those of other jobs, of the time that a job takes. The ends of several let as many begin
# together, so that those calls need not wait for long.
_CLAIM_SHARE, _SHARE, _CLOSE_SHARE = 1 / 32, 1 / 16, 1 / 8
_SUBMIT_SHARE: Final = 1 / 4


class Ledger:
    """Thread-safe; every method raises RedisUnavailable when Redis cannot be used. Transitions are atomic."""

    def __init__(
        self, client: RedisClient, *, lease_s: float, max_attempts: int, keep_closed_s: int, keep_done_s: int = 6 * 3600
    ) -> None:
        self._client = client
        self._lease_ms = int(lease_s * 1000)
        self._max_attempts = max_attempts
        self._keep_closed_s = keep_closed_s
        self._keep_done_s = min(keep_done_s, keep_closed_s)
        self._submit = client.register_script(scripts.SUBMIT)
        self._renew = client.register_script(scripts.RENEW)
        self._restore = client.register_script(commit_scripts.RESTORE)
        self._run_alone = client.register_script(scripts.RUN_ALONE)
        self._survived = client.register_script(scripts.SURVIVED)
        self._postpone = client.register_script(scripts.POSTPONE)
        self._states = client.register_script(scripts.STATES)
        self._shared = SharedCalls(client, self._lease_ms, self.deaths_alone)
        self.batch_delay = BatchDelay()
        # One for each queue, so that a group is opened by one script.
        self._gathered = {queue: Gathering(self._open) for queue in queues_of(QUEUE_ACTIVATE)}
        self.recovery = Recovery(client, keep_closed_s)
        self.completions = Completions(EventLog(client))

    @classmethod
    def connect(cls, settings: Settings) -> Ledger:
        return cls(
            connect_redis(settings),
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            keep_closed_s=settings.keep_closed_s,
            keep_done_s=settings.keep_done_s,
        )

    def disconnect(self) -> None:
        """Close the connections; a later call opens new ones."""
        self.completions.close()
        self._client.close()

    @property
    def deaths_alone(self) -> int:
        """How many workers die of a job that runs alone before it is to blame. The first start, beside other jobs, and
        the one that closes the job count as attempts as well."""
        return max(1, self._max_attempts - 2)

    def check(self) -> None:
        """Raise RedisUnavailable, or InvalidSetting, unless a Redis answers that takes jobs."""
        self._client.check()

    # ── producers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, requests: Sequence[Request], job_ids: Sequence[str] | None = None, client: str = "") -> list[bool]:
        """Write jobs and their places in the queue; True for those that are new and whose message must now be sent.

        Their ids are those that the requests have, unless `job_ids` gives others. They are in the queues of `client`'s
        share (:mod:`tasks.shares`), which their messages have to be sent to. A job that failed or was cancelled is
        opened again, and so is one that is committed or done, and whose asset was activated by another job since, or
        removed, or whose collection was deleted. None is for another request under the same idempotency key.
        """
        ids = job_ids or [request.job_id for request in requests]
        jobs = [
            _new_job(job_id, request.task, share_queue(request.queue, client), request.message())
            for request, job_id in zip(requests, ids, strict=True)
        ]
        # Activations come by the thousand; nothing else may wait for its neighbours.
        if [job.task for job in jobs] == [TASK_ACTIVATE]:
            return [self._gathered[jobs[0].queue](jobs[0], self.batch_delay.max_s(_SUBMIT_SHARE))]
        return self._open(jobs)

    def _open(self, jobs: Sequence[Resend]) -> list[bool]:
        new: dict[int, bool] = {}
        for queue in dict.fromkeys(job.queue for job in jobs):
            ours = [n for n, job in enumerate(jobs) if job.queue == queue]
            for start in range(0, len(ours), _OPENED_AT_ONCE):
                some = ours[start : start + _OPENED_AT_ONCE]
                args = [arg for n in some for arg in submit_args(jobs[n].job_id, jobs[n].task, jobs[n].payload)]
                keys = submit_keys(queue, [jobs[n].job_id for n in some])
                answers = self._submit(keys=keys, args=[queue, *args])
                new |= {n: bool(opened) for n, (opened, _) in zip(some, answers, strict=True)}
        return [new[n] for n in range(len(jobs))]

    def get(self, job_id: str) -> JobRecord:
        """Raises JobMissing: never submitted here, or forgotten since."""
        fields: dict[str, str] = self._client.hgetall(job_key(job_id))
        if not fields:
            raise JobMissing(f"The ledger knows no job {job_id}: submit it again.")
        return record_of(job_id, fields)

    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """The state of each job, in order; None for a job the ledger does not know."""
        return [state for state, _ in self.states_and_places(job_ids)]

    def states_and_places(self, job_ids: Sequence[str]) -> list[tuple[JobState | None, int]]:
        """The same, with each job's last place in its queue; a job that is opened again gets a later one."""
        answer = self._states(keys=[job_key(job_id) for job_id in job_ids])
        return [
            (JobState(state) if state in _STATES else None, int(place) if str(place).isdecimal() else 0)
            for state, place in zip(answer[::2], answer[1::2], strict=True)
        ]

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, job_id: str, queue: str, token: str, worker: str) -> Claim:
        """Try to start a job of a queue, or of one of its share queues: counts the attempt and takes the lease under
        `token`."""
        call = ClaimCall(job_id, token, queue, worker)
        return Claim(self._shared.claim(call, self.batch_delay.max_s(_CLAIM_SHARE)))

    def run_alone(self, job_id: str, token: str) -> bool:
        """Note that a suspect runs in a process without other jobs: if the worker dies now, it died of this one. False
        when the job is no longer the caller's."""
        return bool(self._run_alone(keys=[job_key(job_id)], args=[token]))

    def survived(self, job_id: str, token: str) -> bool:
        """Note that the caller lost its lease of a job that ran alone, and did not die of it: Redis was out of reach,
        or the process slow or asleep. True when the job had been blamed for that, which it is not any more."""
        return bool(self._survived(keys=[job_key(job_id)], args=[token]))

    def postpone(self, job_id: str, queue: str, token: str, most: int | None) -> float | None:
        """Put a running job off: it is sent again after a pause that doubles each time.

        Args:
            most: how many attempts the job has in all; None for any number. The two are counted apart.

        Returns:
            Seconds of the pause; a negative number when the attempts are used up, and the caller keeps the job; None
            when it is no longer the caller's.
        """
        field = "postponed" if most is None else "refused"
        pause = self._postpone(
            keys=[job_key(job_id), LEASES],
            args=[job_id, token, field, most or 0, _FIRST_DELAY_MS, _LONGEST_DELAY_MS, random.uniform(0.5, 1.5), queue],
        )
        return None if pause is None else int(pause) / 1000

    def stored(self, job_id: str) -> Resend | None:
        """The message of a job as it was submitted; None for one that the ledger does not know, or keeps without."""
        task, queue, payload = self._client.hmget(job_key(job_id), "task", "queue", "payload")
        return Resend(job_id, task, queue, payload) if task and queue and payload else None

    def said(self, job_id: str) -> str:
        """The digest of the request of a job that was named by an idempotency key (:attr:`Request.digest`); "" for
        another job, or one that is not known."""
        return self._client.hget(job_key(job_id), "said") or ""

    def adopt(self, job_id: str, task: str, queue: str, payload: Any) -> None:
        """Add a job whose message was delivered although the ledger does not know it; the payload may be anything."""
        self._open([_new_job(job_id, task, queue, payload)])

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

    def may_replace(self, job_id: str) -> bool:
        """Whether one of the callers that submitted the job has said that it may take another image's place."""
        return bool(self._client.hexists(job_key(job_id), "replace"))

    def begin_publishing(self, job_id: str, token: str) -> bool:
        """Ask to make effects that others see: from now on the job cannot be cancelled. False when it no longer runs
        under that token."""
        return self._shared.publish(PublishCall(job_id, token), self.batch_delay.max_s(_SHARE))

    def commit(
        self, job_id: str, token: str, document: tuple[str, str], registration: Registration | None, seen: Seen | None,
        found: int,
    ) -> Commit | None:  # fmt: skip
        """Decide how a job ends, in one step: its document, and of an activation the asset's new state.

        The document is kept in the ledger until the job is closed. Called again, it answers the same.

        Args:
            document: the JSON up to where the journal's entry belongs, and after that.
            registration: None for a job that registers no asset.
            seen: what the asset's state was taken for.
            found: the highest number of a document of this job in S3, 0 when there is none.

        Returns:
            None when the asset has to be looked up, and its file stored, again: a compaction or a purge came between;
            or the collection was deleted, or built again.

        Raises:
            LeaseLost: the job does not run under that token any more; nothing was changed.
            AssetConflict: the asset is of another source, and is not to be replaced.
        """
        call = CommitCall(job_id, token, document, registration, seen, found)
        answer, *rest = self._shared.commit(call, self.batch_delay.max_s(_SHARE))
        if answer == "moved":
            return None
        if answer == "conflict" and registration:
            raise conflict_of(registration.asset_id, *rest)
        if answer == "lost":
            raise _lost(job_id)
        return Commit(rest[0].encode(), int(rest[1]))

    def committed(self, job_id: str) -> Commit | None:
        """What was committed and is not closed yet."""
        document, number = self._client.hmget(job_key(job_id), "document", "commits")
        return Commit(document.encode(), int(number)) if document else None

    def restore(
        self, job_id: str, token: str, registration: Registration, entry: str, seen: Seen, *, covered: bool, number: int
    ) -> bool | None:
        """Take over a document that the ledger has forgotten: register its asset again where the journal lost that.

        Args:
            entry: the journal's entry that the document names.
            covered: whether the collection's segments hold that entry.
            number: of the document.

        Returns:
            False when the asset has changed since; None as in :meth:`commit`.

        Raises:
            LeaseLost: as in :meth:`commit`.
        """
        parts = [registration.asset_id, registration.code, registration.meta, registration.facts.text()]
        (answer,) = self._restore(
            keys=[job_key(job_id), *JournalKeys.of(registration.collection).all],
            args=[job_id, token, number, *parts, entry, seen.announcements, "1" if covered else "", seen.incarnation],
        )
        if answer == "lost":
            raise _lost(job_id)
        return None if answer == "moved" else answer == "restored"

    def close(
        self, job_id: str, token: str, state: JobState, code: str = "", message: str = "",
        recorded: tuple[str, str, str] | None = None, *, found_in_s3: bool = False,
    ) -> bool:  # fmt: skip
        """End a job; False when the lease was lost and another worker ends it.

        Args:
            recorded: collection, asset and journal entry of which S3 has a record now.
            found_in_s3: a job that ended well need not be kept for long: the same request is never made again, or finds
                the document in S3.
        """
        keep_s = self._keep_done_s if found_in_s3 and state is JobState.DONE else self._keep_closed_s
        call = CloseCall(job_id, token, state, (code, message[:_MESSAGE_BOUND]), keep_s, recorded or ("", "", ""))
        return self._shared.close(call, self.batch_delay.max_s(_CLOSE_SHARE))

    def unsettle(self, collection: str) -> None:
        """Say that a collection's journal may lack an entry that a document names: a repair has to look."""
        seconds, microseconds = self._client.time()
        now_ms = seconds * 1000 + microseconds // 1000
        state = JournalKeys.of(collection).state
        pipe = self._client.pipeline(transaction=True)
        pipe.hsetnx(state, "unsettled", str(now_ms)).hset(state, "lost", str(now_ms)).execute()


_STATES: Final = frozenset(JobState)


def _new_job(job_id: str, task: str, queue: str, payload: Any) -> Resend:
    return Resend(job_id, task, queue, canonical_json(payload).decode())


def _lost(job_id: str) -> LeaseLost:
    return LeaseLost(f"Job {job_id} is no longer this worker's: its lease ran out, or it was cancelled.")
