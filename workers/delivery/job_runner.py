"""The life of a job in a worker: claim it, do it, commit its end, publish that, close it; whatever goes wrong.

The order is the promise. What is stored before the commit has keys of its own, and nothing refers to it. The commit is
one step in Redis, under the job's token; how a job ends from there on is in :mod:`workers.delivery.job_end`. A worker
that dies anywhere leaves a lease that runs out. The next one does the work again, or finds it committed and only
finishes it.

A job that was in flight when a worker died is a suspect: it is repeated without other jobs in its process. While S3 is
away, or refuses, a job is put off instead of keeping its thread.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from tasks.errors import (
    AiiError,
    BadInput,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    LeaseLost,
    Poison,
    Unavailable,
    WorkerStopping,
)
from tasks.ledger.commits import Commit
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import Claim
from tasks.messages import validated
from tasks.names import QUEUE_ACTIVATE
from tasks.results import FailureResult, Result
from tasks.shares import base_queue
from tasks.storage import ObjectStore
from workers.delivery.deadlines import Deadlines, Watched
from workers.delivery.identity import Identity
from workers.delivery.isolation import Isolation
from workers.delivery.job import HeldJob, Kind, Publication, Running
from workers.delivery.job_end import JobEnd
from workers.delivery.leases import Leases
from workers.delivery.retry_policy import JobRetryPolicy
from workers.delivery.set_aside import SetAside
from workers.monitoring.stopwatch import Stopwatch

__all__ = ["JobRunner", "Services"]

logger = logging.getLogger(__name__)

# Upon these a job is left as it is, open in the ledger or closed by an operator: it is not this worker's any more.
_NOT_OURS: Final = (LeaseLost, Cancelled, WorkerStopping)


@dataclass(frozen=True)
class Services:
    """What jobs are run with; one for a process."""

    ledger: Ledger
    store: ObjectStore
    leases: Leases
    identity: Identity
    retry_policy: JobRetryPolicy
    isolation: Isolation
    set_aside: SetAside


@dataclass(frozen=True)
class _Message:
    """What a message says of its job, and what is wrong with it, if that is known."""

    payload: Any
    problem: AiiError | None


class JobRunner:
    """Runs jobs, one a call. Thread-safe.

    Args:
        stage_timeout_s: how long a stage may take, see :class:`Deadlines`.
        observe: is given the result of each job that was closed here.
        end_process: called when a thread is lost to a job that took too long.
    """

    def __init__(
        self,
        services: Services,
        stage_timeout_s: float,
        observe: Callable[[Result], None],
        end_process: Callable[[], None],
    ) -> None:
        self._ledger = services.ledger
        self._leases = services.leases
        self._identity = services.identity
        self._retry_policy = services.retry_policy
        self._isolation = services.isolation
        self._set_aside = services.set_aside
        self._end = JobEnd(services.ledger, services.store, services.leases, services.retry_policy, observe)
        self.deadlines = Deadlines(stage_timeout_s, self._fail_late, end_process)

    def run(self, kind: Kind[Any], job_id: str, payload: Any, problem: AiiError | None = None) -> str:
        """Do one delivered job; returns how it ended, for the log and Flower. No failure of a job is raised.

        A job with a `problem` fails with that.
        """
        token, message = uuid.uuid4().hex, _Message(payload, problem)
        try:
            with self._isolation.shared(), self._batched(kind):
                claim = self._claim(kind, job_id, payload, token)
                if not claim.granted:
                    return claim.value
                self._leases.hold(job_id, token)
                if claim is not Claim.SUSPECT:
                    return self._run(kind, job_id, token, message, claim)
            with self._isolation.alone():
                return self._run_alone(kind, job_id, token, message)
        except _NOT_OURS as error:
            logger.warning("%s", error, extra={"job_id": job_id})
            return "left"
        except Exception as error:  # of the ledger's record, say: that of the work itself has ended the job
            logger.exception("A job could not be run", extra={"job_id": job_id})
            self._give_up(kind, job_id, payload, error)
            return "set aside"
        finally:
            self._leases.drop(job_id, token)

    def _batched(self, kind: Kind[Any]) -> AbstractContextManager[None]:
        """Activations come by the thousand, and their calls of the ledger may wait for each other's; nothing else's."""
        return self._ledger.batch_delay.job() if kind.queue == QUEUE_ACTIVATE else nullcontext()

    def refuse(self, job_id: str, queue: str, reason: str, kinds: Sequence[Kind[Any]]) -> str:
        """End the job of a message that could not be used (`reason`), unless the ledger knows what the job really is:
        then the message only says that it waits."""
        stored = self._retry_policy(lambda: self._ledger.stored(job_id))
        if stored and base_queue(stored.queue) != queue:
            return "left"
        of_queue = [kind for kind in kinds if kind.queue == queue]
        known = next((kind for kind in of_queue if stored and kind.task == stored.task), None)
        if stored and known:
            return self.run(known, job_id, _parsed(stored.payload))
        return self.run(of_queue[0], job_id, {}, InvalidRequest(reason))

    def _run(self, kind: Kind[Any], job_id: str, token: str, message: _Message, claim: Claim) -> str:
        running = Running(job_id, Stopwatch(), self._leases, self._identity, suspect=claim is Claim.SUSPECT)
        job = HeldJob(kind, running, token)
        try:
            if claim is Claim.COMMITTED:
                return self._end.finish_committed(job)
            job = self._end.with_documents(job)
            return self._end.take_over(job) or self._end.finish(job, self._committed(job, message, claim))
        except Unavailable as error:
            return self._put_off(job, error)

    def _committed(self, job: HeldJob, message: _Message, claim: Claim) -> Commit:
        """Do the work and commit its result, or why it has none."""
        if claim is Claim.EXHAUSTED:
            return self._end.commit(job, self._poisoned(job))
        try:
            return self._end.commit(job, self._made(job, message))
        except (*_NOT_OURS, Unavailable):
            raise
        except AiiError as error:
            failure = _failure(job, error.code, error.message)
        except Exception as error:
            logger.exception("A job failed with an unforeseen error", extra={"job_id": job.job_id})
            text = f"{type(error).__name__}; the worker's log has the rest, under job {job.job_id}."
            failure = _failure(job, AiiError.code, text)
        return self._end.commit(job, failure)

    def _made(self, job: HeldJob, message: _Message) -> Result | Publication:
        if message.problem:
            raise message.problem
        request = self._request(job.kind, job.job_id, message.payload)
        # A service that goes away in the middle only delays: all effects of the work can be repeated.
        return self._retry_policy(lambda: self._work(job.kind, request, job.running))

    def _run_alone(self, kind: Kind[Any], job_id: str, token: str, message: _Message) -> str:
        """Run a suspect while nothing else runs here: it is this job that a death would tell of."""
        logger.warning("A worker died with this job in flight: it runs alone", extra={"job_id": job_id})
        if not self._retry_policy(lambda: self._ledger.run_alone(job_id, token)):
            raise LeaseLost(f"Job {job_id} is no longer this worker's: its lease ran out.")
        try:
            return self._run(kind, job_id, token, message, Claim.SUSPECT)
        except LeaseLost:
            self._retry_policy(lambda: self._ledger.survived(job_id, token))
            raise

    def _put_off(self, job: HeldJob, error: Unavailable) -> str:
        """Give a job back until later; one whose attempts are used up fails, unless its end is committed already."""
        committed = self._retry_policy(lambda: self._ledger.committed(job.job_id))
        most = None if committed else error.most_attempts
        self._leases.drop(job.job_id, job.token)
        pause_s = self._retry_policy(lambda: self._ledger.postpone(job.job_id, job.kind.queue, job.token, most))
        if pause_s is None:
            return "left"
        if pause_s >= 0:
            logger.warning("%s The job is tried again in %.1f s", error, pause_s, extra={"job_id": job.job_id})
            return f"put off {error.code}"
        self._leases.hold(job.job_id, job.token)
        return self._end.fail(job, _failure(job, error.code, error.message))

    def _fail_late(self, late: Watched, error: DeadlineExceeded) -> None:
        """End a job in the name of a thread that may never come back; if it does, it finds that the lease is gone."""
        token = self._leases.drop(late.running.job_id)
        if token and self._ledger.begin_publishing(late.running.job_id, token):
            job = HeldJob(late.kind, late.running, token)
            self._end.fail(job, _failure(job, error.code, error.message))

    def _give_up(self, kind: Kind[Any], job_id: str, payload: Any, error: Exception) -> None:
        """Set aside a job whose record is beyond use; it must not come back for ever."""
        reason = f"Job {job_id} cannot be run ({type(error).__name__}: {error})"
        try:
            self._ledger.recovery.set_aside(job_id, reason)
        except Exception:
            logger.exception("The job's record could not be set aside", extra={"job_id": job_id})
        self._set_aside.add("ledger", reason, _content(job_id, kind.task, payload))

    def _claim(self, kind: Kind[Any], job_id: str, payload: Any, token: str) -> Claim:
        """Claim the job. One that the ledger does not know (Redis was emptied, or the message was sent
        without the ledger) is added to it first, so that it ends like any other."""
        worker = self._identity.worker
        claim = self._retry_policy(lambda: self._ledger.claim(job_id, kind.queue, token, worker))
        if claim is Claim.MISSING:
            self._retry_policy(lambda: self._ledger.adopt(job_id, kind.task, kind.queue, payload))
            claim = self._retry_policy(lambda: self._ledger.claim(job_id, kind.queue, token, worker))
        return claim

    def _request(self, kind: Kind[Any], job_id: str, payload: Any) -> Any:
        """What is to be done: the message's request where the job's id follows from it, else what the ledger has under
        that id. A message does not change what a known job is, and one of an unknown job was added just now.

        Raises:
            BadInput: neither can be used.
        """
        try:
            request = validated(kind.model, payload)
            if job_id in (request.job_id, request.version_1_id):
                return request
            problem: AiiError = InvalidRequest("The message is of another task than its job.")
        except BadInput as error:
            problem = error
        stored = self._retry_policy(lambda: self._ledger.stored(job_id))
        if stored is None or stored.task != kind.task:
            raise problem
        return validated(kind.model, _parsed(stored.payload))

    def _work(self, kind: Kind[Any], request: Any, running: Running) -> Result | Publication:
        with self.deadlines.watch(kind, running):
            return kind.work(request, running)

    def _poisoned(self, job: HeldJob) -> FailureResult:
        text = (
            f"{self._ledger.deaths_alone} workers died while they ran this job and nothing else: "
            "check the image and the worker's log."
        )
        return _failure(job, Poison.code, text)


def _failure(job: HeldJob, code: str, message: str) -> FailureResult:
    return FailureResult(
        task=job.kind.task, job_id=job.job_id, code=code, message=message, provenance=job.running.provenance()
    )


def _parsed(payload: str) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _content(job_id: str, task: str, payload: Any) -> bytes:
    """A job as it is kept for an operator; without its request where that is nested too deeply."""
    try:
        return json.dumps({"job_id": job_id, "task": task, "payload": payload}).encode()
    except RecursionError:
        return json.dumps({"job_id": job_id, "task": task}).encode()
