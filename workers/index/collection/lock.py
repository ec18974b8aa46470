"""One process at a time may write a collection's next generation."""

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

__all__ = ["Writing", "writing"]

logger = logging.getLogger(__name__)

_LIFE_S: Final = 15.0


@dataclass(frozen=True)
class Writing:
    """The right to write a collection's next generation, as long as nobody took it away."""

    collection: str
    _lock: Lock

    def check(self) -> None:
        """Raise CollectionBusy when the lock was lost (this process stood still for too long, or Redis was emptied):
        somebody else may be writing by now, and this one must not publish."""
        if not self._lock.owned():
            raise CollectionBusy(f"The right to write collection {self.collection!r} was lost: try again.")


@contextmanager
def writing(client: RedisClient, collection: str) -> Iterator[Writing]:
    """Hold the collection's lock; it is renewed meanwhile, and frees itself soon after its holder died.

    Raises:
        CollectionBusy: somebody else holds it.
    """
    lock = client.lock(f"aii:writing:{collection}", timeout=_LIFE_S, blocking=False, thread_local=False)
    if not lock.acquire():
        raise CollectionBusy(f"Collection {collection!r} is being written by somebody else: try again later.")
    renewal = PeriodicThread("collection-lock", _LIFE_S / 3, partial(_renew, lock))
    renewal.start()
    try:
        yield Writing(collection, lock)
    finally:
        renewal.stop()
        _give_back(lock)


def _renew(lock: Lock) -> None:
    try:
        lock.reacquire()
    except redis.exceptions.LockError as error:
        logger.warning("A collection's lock could not be renewed: %s", error)


def _give_back(lock: Lock) -> None:
    try:
        lock.release()
    except (redis.RedisError, RedisUnavailable):
        logger.warning("A collection's lock could not be given back; it frees itself")
