"""Leases: what this process holds of the ledger, and the heartbeat that keeps it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tasks.errors import AiiError, Cancelled, JobMissing, LeaseLost
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.periodic import PeriodicThread

logger = logging.getLogger(__name__)


class Leases:
    """The jobs that this process holds; its thread renews their leases well before they run out. Thread-safe."""

    def __init__(self, ledger: Ledger, lease_s: float) -> None:
        self._ledger = ledger
        self._held: dict[str, str] = {}
        self._lock = threading.Lock()
        self.thread = PeriodicThread("leases", lease_s / 4, self.renew, stale_after_s=lease_s)

    def hold(self, job_id: str, token: str) -> None:
        with self._lock:
            self._held[job_id] = token

    def drop(self, job_id: str, token: str = "") -> str | None:
        """Give up a lease here, without asking the ledger; returns its token, None when it is not held. With a `token`,
        one under another token stays: a message can come twice, and another thread may hold the job."""
        with self._lock:
            if token and self._held.get(job_id) != token:
                return None
            return self._held.pop(job_id, None)

    def drop_all(self) -> dict[str, str]:
        """Give up every lease here; returns the token of each job. The ledger is not asked."""
        with self._lock:
            held, self._held = self._held, {}
        return held

    def count(self) -> int:
        """How many jobs this process holds."""
        with self._lock:
            return len(self._held)

    def held(self, job_id: str) -> bool:
        """Whether the job was still this worker's at the last renewal, at most a quarter of a lease ago. Asks no
        server, so it may be called often."""
        with self._lock:
            return job_id in self._held

    def check(self, job_id: str) -> None:
        """Ask the ledger whether the job is still this worker's.

        Raises:
            LeaseLost: its lease ran out; another worker may hold it by now.
            Cancelled: an operator ended it.
        """
        self._demand(job_id, self._ledger.holds)

    def begin_publishing(self, job_id: str) -> None:
        """The same, and from now on the job cannot be cancelled."""
        self._demand(job_id, self._ledger.begin_publishing)

    def may_replace(self, job_id: str) -> bool:
        """Whether the job may take an asset's place: a caller may have said so after the job's message was sent."""
        return self._ledger.may_replace(job_id)

    def _demand(self, job_id: str, granted: Callable[[str, str], bool]) -> None:
        with self._lock:
            token = self._held.get(job_id)
        if token is None or not granted(job_id, token):
            raise self._reason(job_id)

    def _reason(self, job_id: str) -> AiiError:
        """Why a job is no longer this worker's."""
        try:
            if self._ledger.get(job_id).state is JobState.CANCELLED:
                return Cancelled(f"Job {job_id} was cancelled.")
        except JobMissing:
            pass  # as after its Redis was emptied
        return LeaseLost(f"Job {job_id} is no longer this worker's: its lease ran out.")

    def renew(self) -> None:
        """Extend every held lease, and forget those that another worker holds by now.

        Raises:
            RedisUnavailable: Redis does not answer; nothing is forgotten.
        """
        with self._lock:
            held = dict(self._held)
        for job_id in self._ledger.renew(held):
            self._drop_if(job_id, held[job_id])

    def _drop_if(self, job_id: str, token: str) -> None:
        """Forget a lost lease, unless the job was closed, or claimed again here, in the meantime."""
        with self._lock:
            if self._held.get(job_id) == token:
                logger.warning("The lease of a job was lost", extra={"job_id": job_id})
                del self._held[job_id]
