"""The life of a job in a worker: claim it, do it, commit its result, close it; whatever goes wrong.

The order is the promise. Effects come first and are repeatable (fixed keys, an upsert in the journal); the result
document commits them; closing the ledger's entry comes last. A worker that dies anywhere leaves a lease that runs
out, and the next one either repeats the effects or finds the document and only closes.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError

from tasks.documents import last_commit, read_result, write_result
from tasks.errors import AiiError, Cancelled, InvalidRequest, LeaseLost, ObjectMissing, Poison, WorkerStopping
from tasks.ledger.ledger import Claim, Ledger
from tasks.ledger.states import JobState
from tasks.messages import validated
from tasks.names import JOB_ID_PATTERN
from tasks.results import FailureResult, Result
from tasks.storage import ObjectStore
from workers.delivery.identity import Identity
from workers.delivery.job import Kind, Running
from workers.delivery.leases import Leases
from workers.delivery.retry_policy import RetryPolicy
from workers.monitoring.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

# Upon these a job is left as it is, open in the ledger or closed by an operator: it is not this worker's any more.
_NOT_OURS: Final = (LeaseLost, Cancelled, WorkerStopping)


class JobRunner:
    """Runs jobs, one a call; `observe` is given the result of each that was closed here. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        store: ObjectStore,
        leases: Leases,
        identity: Identity,
        retry_policy: RetryPolicy,
        observe: Callable[[Result], None],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._leases = leases
        self._identity = identity
        self._retry_policy = retry_policy
        self._observe = observe

    def run(self, kind: Kind[Any], job_id: str, payload: Any) -> str:
        """Do one delivered job; returns how it ended, for the log and Flower. No failure of a job is raised."""
        if not re.fullmatch(JOB_ID_PATTERN, job_id):
            logger.error("A message without a usable job id was dropped: send jobs with `producer.Producer`")
            return "dropped"
        token = uuid.uuid4().hex
        try:
            claim = self._claim(kind, job_id, payload, token)
            if claim not in (Claim.CLAIMED, Claim.EXHAUSTED):
                return claim.value
            self._leases.hold(job_id, token)
            running = Running(job_id, Stopwatch(), self._leases, self._identity)
            result = self._result(kind, running, payload, exhausted=claim is Claim.EXHAUSTED)
            return self._close(job_id, token, result)
        except _NOT_OURS as error:
            logger.warning("%s", error, extra={"job_id": job_id})
            return "left"
        finally:
            self._leases.drop(job_id)

    def _claim(self, kind: Kind[Any], job_id: str, payload: Any, token: str) -> Claim:
        """Claim the job. One that the ledger does not know (Redis was emptied, or the message was sent
        without the ledger) is added to it first, so that it ends like any other."""
        worker = self._identity.worker
        claim = self._retry_policy(lambda: self._ledger.claim(job_id, kind.queue, token, worker))
        if claim is Claim.MISSING:
            self._retry_policy(lambda: self._ledger.adopt(job_id, kind.task, kind.queue, payload))
            claim = self._retry_policy(lambda: self._ledger.claim(job_id, kind.queue, token, worker))
        return claim

    def _result(self, kind: Kind[Any], running: Running, payload: Any, *, exhausted: bool) -> Result:
        """The committed result of an earlier attempt, or that of this one, committed."""
        earlier = self._committed(running.job_id) if kind.restore else None
        if kind.restore and earlier:
            self._retry_policy(running.begin_publishing)
            if self._restored(kind.restore, earlier):
                return earlier
        result = self._poisoned(kind, running) if exhausted else self._do(kind, running, payload)
        self._retry_policy(running.begin_publishing)
        # A failure never takes the place of a good document: that may be all that is left to register the asset again.
        if earlier is None or not isinstance(result, FailureResult):
            self._commit(running.job_id, result)
        return result

    def _restored(self, restore: Callable[[Any], bool], earlier: Result) -> bool:
        try:
            return self._retry_policy(lambda: restore(earlier))
        except _NOT_OURS:
            raise
        except AiiError as error:
            logger.warning("An earlier result cannot be taken over: %s", error, extra={"job_id": earlier.job_id})
            return False

    def _do(self, kind: Kind[Any], running: Running, payload: Any) -> Result:
        try:
            request = validated(kind.model, payload)
            if request.job_id != running.job_id:
                raise InvalidRequest("The job id is not that of the request: send jobs with `producer.Producer`.")
            # A service that goes away in the middle only delays: all effects of the work can be repeated.
            return self._retry_policy(lambda: kind.work(request, running))
        except _NOT_OURS:
            raise
        except AiiError as error:
            return _failure(kind, running, error.code, error.message)
        except Exception as error:
            logger.exception("A job failed with an unforeseen error", extra={"job_id": running.job_id})
            text = f"{type(error).__name__}; the worker's log has the rest, under job {running.job_id}."
            return _failure(kind, running, AiiError.code, text)

    def _poisoned(self, kind: Kind[Any], running: Running) -> Result:
        text = (
            f"Started {self._ledger.max_attempts} times, and each time the worker died before the end: "
            "check the image and the worker's log."
        )
        return _failure(kind, running, Poison.code, text)

    def _committed(self, job_id: str) -> Result | None:
        try:
            result = self._retry_policy(lambda: read_result(self._store, job_id))
        except (ObjectMissing, ValidationError):
            return None
        return None if result.status == "failed" else result

    def _commit(self, job_id: str, result: Result) -> None:
        number = self._retry_policy(lambda: max(1, last_commit(self._store, job_id)))
        self._retry_policy(lambda: write_result(self._store, job_id, result, number))

    def _close(self, job_id: str, token: str, result: Result) -> str:
        failed = isinstance(result, FailureResult)
        state = JobState.FAILED if failed else JobState.DONE
        code, message = (result.code, result.message) if isinstance(result, FailureResult) else ("", "")
        self._leases.drop(job_id)  # first: a renewal just after the closing would take the lease for lost
        if self._retry_policy(lambda: self._ledger.close(job_id, token, state, code, message)):
            self._observe(result)
        logger.info("Job %s", result.status, extra={"job_id": job_id, "error_code": code})
        return f"{result.status} {code}".strip()


def _failure(kind: Kind[Any], running: Running, code: str, message: str) -> FailureResult:
    return FailureResult(
        task=kind.task, job_id=running.job_id, code=code, message=message, provenance=running.provenance()
    )
