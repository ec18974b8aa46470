"""The states of a job; a module of its own, because the command line offers them before it imports Redis' client."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["JobState"]


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def closed(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
