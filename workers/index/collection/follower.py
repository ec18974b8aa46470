"""Keeps the open collections up to date: switches to new generations, reads journals, has long ones compacted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from tasks.errors import AiiError, CollectionMissing
from tasks.messages import CompactRequest
from tasks.names import canonical_json, sha256_hex
from tasks.periodic import PeriodicThread
from workers.index.collection.collection import Collection
from workers.index.collection.open_collections import OpenCollections

__all__ = ["Follower"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_STORE_EVERY_S: Final = 30.0
_SUBMIT_AGAIN_S: Final = 600.0


class Follower:
    """Works in a background thread: queries are answered from the old generation until the new one is mapped.

    Args:
        compact_after: compact a collection when its journal holds this many changes; 0 for never.
        submit: submits a request as a job.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        collections: OpenCollections,
        compact_after: int,
        submit: Callable[[CompactRequest], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collections = collections
        self._compact_after = compact_after
        self._submit = submit
        self._clock = clock
        self._checked: dict[str, float] = {}  # when a collection was last looked up in the store
        self._submitted: dict[str, float] = {}  # when a compaction was last submitted, by its nonce
        # Jitter, so that a hundred workers do not fetch the same files in the same moment.
        self.thread = PeriodicThread("follower", _EVERY_S, self.follow_all, jitter=0.5)

    def follow_all(self) -> None:
        """Bring every open collection up to date, once."""
        for collection in self._collections.opened():
            try:
                self._follow(collection)
                collection.catch_up()
                self._compact(collection)
            except CollectionMissing as error:
                logger.warning("%s It is closed here.", error)
                self._collections.close(collection.manifest.collection)
            except AiiError as error:
                logger.warning("%s The current generation stays.", error)
            except Exception:
                logger.exception("A collection could not be followed; the current generation stays")

    def _follow(self, collection: Collection) -> None:
        """Follow at once what Redis announces; ask the store now and then too, because Redis may have been emptied."""
        name, now = collection.manifest.collection, self._clock()
        due = now - self._checked.setdefault(name, now) >= _STORE_EVERY_S
        if due:
            self._checked[name] = now
        if (due or collection.announced()) and collection.follow():
            logger.info("Collection %s: generation %d is current", name, collection.manifest.generation)

    def _compact(self, collection: Collection) -> None:
        """All workers submit the same request for one generation, so that it is one job. A failed one (because a disk
        was full, perhaps) is submitted again after a while."""
        if not self._compact_after or collection.changes < self._compact_after:
            return
        manifest, now = collection.manifest, self._clock()
        nonce = f"{manifest.generation}-{sha256_hex(canonical_json(manifest.model_dump(mode='json')))[:16]}"
        if now - self._submitted.get(nonce, -_SUBMIT_AGAIN_S) >= _SUBMIT_AGAIN_S:
            self._submit(CompactRequest(collection=manifest.collection, nonce=nonce))
            self._submitted = {n: at for n, at in self._submitted.items() if now - at < _SUBMIT_AGAIN_S} | {nonce: now}
