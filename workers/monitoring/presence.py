"""Keeps this worker's note of presence alive; see :mod:`tasks.monitoring.presence`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import psutil

from tasks.connection import RedisClient
from tasks.errors import NotReady, RedisUnavailable
from tasks.monitoring.presence import WorkerNote, announce, withdraw
from tasks.periodic import PeriodicThread

logger = logging.getLogger(__name__)

_EVERY_S: Final = 5.0
_LIFE_S: Final = 16


class Presence:
    """Writes the note, renews it until it is stopped, and takes it away.

    Args:
        note: makes the note as it is now.
    """

    def __init__(self, client: RedisClient, worker: str, note: Callable[[], WorkerNote]) -> None:
        self._client = client
        self._worker = worker
        self._note = note
        self._thread = PeriodicThread("presence", _EVERY_S, self._renew, at_once=True)

    def start(self) -> None:
        """May be called again: Celery reports a worker ready after every reconnection."""
        self._thread.start()

    def check(self) -> None:
        """Raise NotReady until this worker takes jobs."""
        if not self._thread.alive:
            raise NotReady("The worker does not take jobs yet.")

    def stop(self) -> None:
        if not self._thread.alive:
            return
        self._thread.stop()
        try:
            withdraw(self._client, self._worker)
        except RedisUnavailable as error:
            logger.info("The note of this worker's presence stays until it expires: %s", error)

    def _renew(self) -> None:
        announce(self._client, self._note(), _LIFE_S)


def memory_bytes() -> int:
    """Resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)
