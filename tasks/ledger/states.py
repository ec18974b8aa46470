"""The states of a job, and the answers to a worker that wants to start one.

A module of its own, because the command line offers states before it imports Redis' client.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Claim", "JobState"]


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def closed(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class Claim(StrEnum):
    """The answer to a worker that wants to start a job."""

    CLAIMED = "claimed"
    SUSPECT = "suspect"  # the same, and a worker died with the job in flight: it runs alone, see Ledger.run_alone
    MISSING = "missing"
    CLOSED = "closed"
    LEASED = "leased"
    COMMITTED = "committed"  # by a worker that died before it closed the job: the lease is granted, to do that
    EXHAUSTED = "exhausted"  # workers died of it; the lease is granted nevertheless, to close the job

    @property
    def granted(self) -> bool:
        """Whether the caller holds the job's lease now."""
        return self in (Claim.CLAIMED, Claim.SUSPECT, Claim.COMMITTED, Claim.EXHAUSTED)
