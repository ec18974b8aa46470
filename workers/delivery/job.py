"""A kind of job, and a job that runs."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tasks.messages import Request
from tasks.results import Provenance, Result
from workers.delivery.identity import Identity
from workers.delivery.leases import Leases
from workers.monitoring.stopwatch import Stopwatch

__all__ = ["Kind", "Running"]

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
class Kind(Generic[_R]):
    """A kind of job as a worker does it; :mod:`tasks.kinds` has the table of all kinds.

    Attributes:
        model: the class of its message, which names its task and its queue.
        work: makes the result of a job from its message.
        restore: for work that need not be repeated. Given the committed result of an earlier attempt, it restores what
            may have been lost since (Redis can be emptied, S3 keeps the document), and says whether the result still
            holds. Without it, every delivery of a job does the work.
        timeout_s: how long the work may take.
    """

    model: type[_R]
    work: Callable[[_R, Running], Result]
    restore: Callable[[Any], bool] | None = None
    timeout_s: float = math.inf

    @property
    def task(self) -> str:
        return self.model.task_name()

    @property
    def queue(self) -> str:
        return self.model.queue
