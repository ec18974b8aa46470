"""A kind of job, and a job that runs."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tasks.ledger.commits import Registration, Seen
from tasks.messages import Request
from tasks.results import ActivationResult, Provenance, Result
from workers.delivery.identity import Identity
from workers.delivery.leases import Leases
from workers.monitoring.stopwatch import Stopwatch

__all__ = ["HeldJob", "Kind", "Publication", "Restoration", "Running"]

_R = TypeVar("_R", bound=Request)


@dataclass(frozen=True)
class Running:
    """A job that this worker holds, as its handler sees it.

    `suspect`: a worker died with this job in flight; nothing else runs in this process now.
    """

    job_id: str
    watch: Stopwatch
    leases: Leases
    identity: Identity
    suspect: bool = False

    def wanted(self) -> bool:
        """Whether the job is still this worker's; asks no server, see :meth:`Leases.held`."""
        return self.leases.held(self.job_id)

    def still_ours(self) -> None:
        """Ask the ledger before an effect that another worker may already have superseded.

        Raises:
            LeaseLost: another worker may hold the job by now.
            Cancelled: an operator ended it.
        """
        self.leases.check(self.job_id)

    def begin_publishing(self) -> None:
        """The same before the first effect that others see. From here on the job can no longer be cancelled, so that
        a cancelled job has left nothing behind."""
        self.leases.begin_publishing(self.job_id)

    def provenance(self) -> Provenance:
        return Provenance(
            worker=self.identity.worker,
            device=self.identity.device,
            versions=self.identity.versions,
            timings_ms=self.watch.timings_ms(),
            finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        )


@dataclass(frozen=True)
class Publication:
    """What an activation would publish, not committed yet: its file is stored, but nothing refers to it.

    Attributes:
        result: its document, without the journal's entry.
        registration: the asset as it goes into the journal.
        seen: the asset's state, looked up before the file was stored.
        again: looks the asset up and stores the file once more: a compaction or a purge came between.
    """

    result: ActivationResult
    registration: Registration
    seen: Seen
    again: Callable[[], Seen]


@dataclass(frozen=True)
class Restoration:
    """A committed activation that may be taken over.

    Attributes:
        entry: the journal's entry that its document names.
        seen: the asset's state: this very job's.
        covered: whether the collection's segments hold the entry.
    """

    registration: Registration
    entry: str
    seen: Seen
    covered: bool


@dataclass(frozen=True)
class Kind(Generic[_R]):
    """A kind of job as a worker does it; :mod:`tasks.kinds` has the table of all kinds.

    Attributes:
        model: the class of its message, which names its task and its queue.
        work: makes the result of a job from its message, or what is to be published with the result.
        restore: for work that need not be repeated. Given the document of a job that the ledger has forgotten (Redis
            can be emptied, S3 keeps the document), it says what may be taken over; None when the result is not current
            any more. Without it, the work is done again.
        record: keeps a committed result, with the number of its document, on record.
        unique: each request is a job of its own, so that there is no earlier document to look for.
        timeout_s: how long the work may take.
    """

    model: type[_R]
    work: Callable[[_R, Running], Result | Publication]
    restore: Callable[[Any], Restoration | None] | None = None
    record: Callable[[Any, int], None] | None = None
    unique: bool = False
    timeout_s: float = math.inf

    @property
    def task(self) -> str:
        return self.model.task_name()

    @property
    def queue(self) -> str:
        return self.model.queue


@dataclass(frozen=True)
class HeldJob:
    """A job that this worker holds under a token; `found` is the highest number of a document of it in S3."""

    kind: Kind[Any]
    running: Running
    token: str
    found: int = 0

    @property
    def job_id(self) -> str:
        return self.running.job_id
