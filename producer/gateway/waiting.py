"""Requests that wait for the end of a job."""

from __future__ import annotations

from typing import Final

import anyio
from anyio.to_thread import run_sync

from tasks.ledger.ledger import Ledger
from tasks.ledger.waiting import wait_until_closed

__all__ = ["Waiting"]

_MOST: Final = 256  # threads; they sleep, since one thread of the process reads the events for all


class Waiting:
    """Belongs to one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._limiter: anyio.CapacityLimiter | None = None

    async def closed(self, job_id: str, timeout_s: float) -> None:
        """Return when a job has ended, or is known no more, or `timeout_s` seconds are over."""
        self._limiter = self._limiter or anyio.CapacityLimiter(_MOST)
        with anyio.move_on_after(timeout_s):  # for the time until a thread is free
            await run_sync(self._wait, job_id, timeout_s, limiter=self._limiter)

    def _wait(self, job_id: str, timeout_s: float) -> None:
        for _ in wait_until_closed(self._ledger, [job_id], timeout_s):
            pass
