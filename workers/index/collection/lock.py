"""The lock of a collection: one process at a time may write its next generation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import redis
from redis.lock import Lock

from tasks.connection import RedisClient
from tasks.errors import CollectionBusy, RedisUnavailable
from tasks.periodic import PeriodicThread

__all__ = ["WriteLock", "write_lock"]

logger = logging.getLogger(__name__)

_LIFE_S: Final = 15.0


@dataclass(frozen=True)
class WriteLock:
    """A collection's lock, held by this process unless it was lost."""

    collection: str
    _lock: Lock

    def check(self) -> None:
        """Raise CollectionBusy when the lock was lost, because this process was suspended or Redis was emptied: another
        process may be writing by now, and this one must not publish."""
        if not self._lock.owned():
            raise CollectionBusy(f"The lock of collection {self.collection!r} was lost: try again.")


@contextmanager
def write_lock(client: RedisClient, collection: str, purpose: str = "writing") -> Iterator[WriteLock]:
    """Hold the collection's lock. It is renewed meanwhile, and expires within 15 seconds after its holder died.

    Args:
        purpose: `writing` the next generation, or something else that only one process at a time may do.

    Raises:
        CollectionBusy: another process holds it.
    """
    lock = client.lock(f"aii:{purpose}:{collection}", timeout=_LIFE_S, blocking=False, thread_local=False)
    if not lock.acquire():
        raise CollectionBusy(f"Collection {collection!r} is being written by another process: try again later.")
    renewal = PeriodicThread("collection-lock", _LIFE_S / 3, partial(_renew, lock))
    renewal.start()
    try:
        yield WriteLock(collection, lock)
    finally:
        renewal.stop()
        _release(lock)


def _renew(lock: Lock) -> None:
    try:
        lock.reacquire()
    except redis.exceptions.LockError as error:
        logger.warning("A collection's lock could not be renewed: %s", error)


def _release(lock: Lock) -> None:
    try:
        lock.release()
    except (redis.RedisError, RedisUnavailable):
        logger.warning("A collection's lock could not be released; it expires by itself")
