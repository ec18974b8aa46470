"""Time limits of jobs and of their stages.

A thread cannot be ended from outside. So a job that takes too long fails, in the name of its thread; if that thread
does not come back soon after, it never may, and the process ends: its supervisor starts a new one with all its threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tasks.errors import DeadlineExceeded, NotReady
from tasks.periodic import PeriodicThread
from tasks.stages import Stage
from workers.delivery.job import Kind, Running

__all__ = ["Deadlines", "Watched"]

logger = logging.getLogger(__name__)

# They wait for the device, which others use as well, or are as long as a collection is large.
_UNBOUNDED: Final[frozenset[Stage]] = frozenset(("device", "extract", "verify", "compact"))
_LONGEST_GRACE_S: Final = 10.0


@dataclass(eq=False)
class Watched:
    """A job whose time is measured. `failed_at`: when it was found too late, on the monotonic clock."""

    kind: Kind[Any]
    running: Running
    began: float = field(default_factory=time.monotonic)
    failed_at: float | None = None


class Deadlines:
    """Thread-safe.

    Args:
        stage_s: how long a stage may take.
        fail: ends a job with an error in the name of its thread; one that raises is called again.
        end_process: called when the thread of a failed job does not come back.
    """

    def __init__(
        self, stage_s: float, fail: Callable[[Watched, DeadlineExceeded], None], end_process: Callable[[], None]
    ) -> None:
        self._stage_s = stage_s
        self._fail = fail
        self._end_process = end_process
        self._grace_s = min(stage_s, _LONGEST_GRACE_S)
        self._watched: set[Watched] = set()
        self._lock = threading.Lock()
        self.thread = PeriodicThread("deadlines", min(1.0, stage_s / 4), self.enforce)

    @contextmanager
    def watch(self, kind: Kind[Any], running: Running) -> Iterator[None]:
        """Measure the work of the block."""
        watched = Watched(kind, running)
        with self._lock:
            self._watched.add(watched)
        try:
            yield
        finally:
            with self._lock:
                self._watched.discard(watched)

    def enforce(self) -> None:
        """Fail what took too long, and end the process when that did not free its thread."""
        now = time.monotonic()
        with self._lock:
            watched = list(self._watched)
        for job in watched:
            if job.failed_at is None:
                self._fail_if_late(job, now)
            elif now - job.failed_at > self._grace_s:
                logger.critical("A thread does not come back from a job that took too long: this worker ends itself")
                self._end_process()
                return

    def check(self) -> None:
        """Raise NotReady when a thread has been stuck for far longer than this could let pass."""
        with self._lock:
            failed = [job.failed_at for job in self._watched if job.failed_at is not None]
        if failed and time.monotonic() - min(failed) > 3 * self._grace_s:
            raise NotReady("A job took too long, and its thread is stuck.")

    def _fail_if_late(self, job: Watched, now: float) -> None:
        reason = self._lateness(job, now)
        if not reason:
            return
        logger.error("%s", reason, extra={"job_id": job.running.job_id})
        try:
            self._fail(job, DeadlineExceeded(reason))
        finally:  # whatever happened: the thread has had its time
            job.failed_at = now

    def _lateness(self, job: Watched, now: float) -> str | None:
        stage = job.running.watch.current()
        if stage and stage[0] not in _UNBOUNDED and stage[1] > self._stage_s:
            return f"The stage {stage[0]!r} took more than {self._stage_s:g} s (AII_STAGE_TIMEOUT_S)."
        if now - job.began > job.kind.timeout_s:
            return f"The job took more than {job.kind.timeout_s:g} s."
        return None
