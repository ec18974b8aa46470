"""Keeps this worker's note of presence alive; see :mod:`tasks.monitoring.presence`."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tasks.connection import RedisClient
from tasks.errors import NotReady, RedisUnavailable
from tasks.monitoring.presence import WorkerNote, announce, withdraw

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
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """May be called again: Celery reports a worker ready after every reconnection."""
        if not self._thread.is_alive():
            self._thread.start()

    def check(self) -> None:
        """Raise NotReady until this worker takes jobs."""
        if not self._thread.is_alive():
            raise NotReady("The worker does not take jobs yet.")

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._renew()
            if self._stop.wait(_EVERY_S):
                break
        try:
            withdraw(self._client, self._worker)
        except RedisUnavailable as error:
            logger.info("The note of this worker's presence stays until it expires: %s", error)

    def _renew(self) -> None:
        try:
            announce(self._client, self._note(), _LIFE_S)
        except RedisUnavailable as error:
            logger.warning("This worker's presence could not be renewed: %s", error)
        except Exception:  # whatever it was: a worker without this thread counts as one that never got warm
            logger.exception("This worker's presence could not be renewed")


def memory_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
