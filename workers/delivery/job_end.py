"""How a job ends: its end is committed in one step, published word for word, and the ledger's entry closed.

The commit decides, under the job's token, how the job ends, and with it an activated asset's state. What follows, its
record and its document in S3, is made of what was committed, so that any worker that finishes the job writes the same.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from pydantic import ValidationError

from tasks.documents import last_commit, put_document, read_result
from tasks.errors import AiiError, Cancelled, LeaseLost, NotReady, Unavailable, WorkerStopping
from tasks.ledger.commits import Commit
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.results import ActivationResult, FailureResult, Result, parse_result
from tasks.storage import ObjectStore
from workers.delivery.job import HeldJob, Publication
from workers.delivery.leases import Leases
from workers.delivery.retry_policy import JobRetryPolicy

__all__ = ["JobEnd"]

logger = logging.getLogger(__name__)

_PASSED_ON: Final = (LeaseLost, Cancelled, WorkerStopping, Unavailable)


class JobEnd:
    """Thread-safe. Every method raises LeaseLost when the job is no longer this worker's, and Unavailable when it has
    to be put off.

    Args:
        observe: is given the result of each job that was closed here.
    """

    def __init__(
        self, ledger: Ledger, store: ObjectStore, leases: Leases, retry_policy: JobRetryPolicy,
        observe: Callable[[Result], None],
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._store = store
        self._leases = leases
        self._retry_policy = retry_policy
        self._observe = observe

    # ── what an earlier attempt left ─────────────────────────────────────────────────────────────────────────────────

    def finish_committed(self, job: HeldJob) -> str:
        """Finish what another worker had committed before it died; returns how the job ended."""
        commit = self._retry_policy(lambda: self._ledger.committed(job.job_id))
        if commit is None:
            raise LeaseLost(f"Job {job.job_id} is no longer this worker's: another one has closed it.")
        return self.finish(job, commit)

    def with_documents(self, job: HeldJob) -> HeldJob:
        """The same job, with the number of its documents."""
        if job.kind.unique:
            return job
        return replace(job, found=self._retry_policy(lambda: last_commit(self._store, job.job_id)))

    def take_over(self, job: HeldJob) -> str | None:
        """Close a job with a document that the ledger has forgotten, if that is still current, and return how it ended;
        what its asset lacks in the journal is registered again."""
        if not job.found or job.kind.restore is None:
            return None
        try:
            earlier = self._retry_policy(lambda: read_result(self._store, job.job_id, job.found))
            if earlier.status == "failed" or not self._retry_policy(lambda: self._taken_over(job, earlier)):
                return None
        except _PASSED_ON:
            raise
        except (AiiError, ValidationError) as error:
            logger.warning("An earlier result cannot be taken over: %s", error, extra={"job_id": job.job_id})
            return None
        return self._close(job, earlier)

    def _taken_over(self, job: HeldJob, earlier: Result) -> bool:
        found = job.kind.restore(earlier) if job.kind.restore else None
        if found is None:
            return False
        restored = self._ledger.restore(
            job.job_id, job.token, found.registration, found.entry, found.seen, covered=found.covered, number=job.found
        )
        if restored is None:
            raise NotReady("The collection was compacted, or built again, at this moment.")
        return restored

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, job: HeldJob, made: Result | Publication) -> Commit:
        """Decide how the job ends. When that was decided already, by an earlier attempt or in another thread, it stays
        so.

        Raises:
            AssetConflict: the asset is another image.
        """
        if isinstance(made, Publication):
            return self._published(job, made)
        document = (made.model_dump_json(), "")
        commit = self._ledger.commit
        committed = self._retry_policy(lambda: commit(job.job_id, job.token, document, None, None, job.found))
        assert committed is not None  # only a registration has to be repeated
        return committed

    def _published(self, job: HeldJob, made: Publication) -> Commit:
        """Commit an activation: its document and its asset's new state, in one step."""
        document, seen = _without_entry(made.result), [made.seen]

        def attempt() -> Commit:
            for _ in range(2):  # what was assumed first is wrong after each compaction: no service is to blame
                known = seen.pop() if seen else made.again()
                commit = self._ledger.commit(job.job_id, job.token, document, made.registration, known, job.found)
                if commit is not None:
                    return commit
            raise NotReady("The collection was compacted or purged at this moment.")

        return self._retry_policy(attempt)

    def finish(self, job: HeldJob, commit: Commit) -> str:
        """Publish what was committed, and close the job; returns how it ended."""
        result, recorded = parse_result(commit.document), None
        record = job.kind.record
        if record and isinstance(result, ActivationResult):
            self._retry_policy(lambda: record(result, commit.number))
            recorded = (result.collection, result.asset_id, result.journal_entry)
        self._retry_policy(lambda: put_document(self._store, job.job_id, commit.document, commit.number))
        return self._close(job, result, recorded)

    def fail(self, job: HeldJob, failure: FailureResult) -> str:
        """End a job whose attempts or time are used up. Where S3 does not take the document, the ledger alone says how
        the job ended."""
        try:
            job = self.with_documents(job)
            return self.finish(job, self.commit(job, failure))
        except Unavailable as error:
            logger.error("%s The job has no result document.", error, extra={"job_id": job.job_id})
        return self._close(job, failure)

    def _close(self, job: HeldJob, result: Result, recorded: tuple[str, str, str] | None = None) -> str:
        code, message = (result.code, result.message) if isinstance(result, FailureResult) else ("", "")
        state = JobState.FAILED if code else JobState.DONE
        self._leases.drop(job.job_id, job.token)  # first: a renewal just after would take the lease for lost
        close = partial(self._ledger.close, job.job_id, job.token, state, code, message, recorded)
        in_s3 = job.kind.unique or job.kind.restore is not None
        if self._retry_policy(lambda: close(found_in_s3=in_s3)):
            self._observe(result)
        elif recorded and self._retry_policy(lambda: self._ledger.states([job.job_id])) == [None]:
            # Redis has lost the job, and perhaps the asset's entry before a repair that this document was too late for.
            self._retry_policy(lambda: self._ledger.unsettle(recorded[0]))
        logger.info("Job %s", result.status, extra={"job_id": job.job_id, "error_code": code})
        return f"{result.status} {code}".strip()


def _without_entry(result: ActivationResult) -> tuple[str, str]:
    """The document up to where the journal's entry belongs, which the commit makes, and after that."""
    mark = uuid.uuid4().hex  # occurs nowhere else in the document
    before, _, after = result.model_copy(update={"journal_entry": mark}).model_dump_json().partition(mark)
    return before, after
