"""Follows the collections that are open: puts new generations in force, and has long journals compacted."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from tasks.errors import AiiError
from tasks.messages import CompactRequest
from workers.collections import Collections
from workers.index.collection import Collection

__all__ = ["Follower"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_LOOK_AT_THE_STORE_S: Final = 30.0
_ASK_AGAIN_S: Final = 60.0


class Follower:
    """A thread of its own: queries are answered from the old generation until the new one is mapped.

    Args:
        compact_after: entries in a journal from which on its collection is compacted; 0 for never.
        submit: accepts a request as a job.
    """

    def __init__(
        self, collections: Collections, compact_after: int, submit: Callable[[CompactRequest], object]
    ) -> None:
        self._collections = collections
        self._compact_after = compact_after
        self._submit = submit
        self._looked = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # Jitter: a hundred workers shall not fetch the same files in the same moment.
        while not self._stop.wait(_EVERY_S * random.uniform(0.5, 1.5)):
            for collection in self._collections.opened():
                try:
                    self._follow(collection)
                    self._compact(collection)
                except AiiError as error:
                    logger.warning("%s The generation in force stays.", error)
                except Exception:
                    logger.exception("A collection could not be followed; the generation in force stays")

    def _follow(self, collection: Collection) -> None:
        """What Redis announces is followed at once; since Redis may forget, the store is asked now and then as well."""
        due = time.monotonic() - self._looked >= _LOOK_AT_THE_STORE_S
        if due:
            self._looked = time.monotonic()
        if (due or collection.announced()) and collection.follow():
            manifest = collection.manifest
            logger.info("Collection %s: generation %d is in force", manifest.collection, manifest.generation)

    def _compact(self, collection: Collection) -> None:
        """All workers ask in the same words, so that it is one job."""
        if self._compact_after and collection.journal_length >= self._compact_after:
            manifest = collection.manifest
            nonce = f"{manifest.generation}-{int(time.time() // _ASK_AGAIN_S)}"
            self._submit(CompactRequest(collection=manifest.collection, nonce=nonce))
