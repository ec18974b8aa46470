"""Follows the collections that are open: puts new generations in force, reads their journals, and has long ones
compacted."""

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
_LOOK_AT_THE_STORE_S: Final = 30.0
_ASK_AGAIN_S: Final = 600.0


class Follower:
    """Its thread follows in the background: queries are answered from the old generation until the new one is mapped.

    Args:
        compact_after: changes in a journal from which on its collection is compacted; 0 for never.
        submit: accepts a request as a job.
        clock: seconds, of any beginning.
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
        self._looked: dict[str, float] = {}  # when a collection was last looked up in the store
        self._asked: dict[str, float] = {}  # when a compaction was last asked for, by its nonce
        # Jitter: a hundred workers shall not fetch the same files in the same moment.
        self.thread = PeriodicThread("follower", _EVERY_S, self.look, jitter=0.5)

    def look(self) -> None:
        """Look at every open collection once."""
        for collection in self._collections.opened():
            try:
                self._follow(collection)
                collection.catch_up()
                self._compact(collection)
            except CollectionMissing as error:
                logger.warning("%s It is let go.", error)
                self._collections.let_go(collection.manifest.collection)
            except AiiError as error:
                logger.warning("%s The generation in force stays.", error)
            except Exception:
                logger.exception("A collection could not be followed; the generation in force stays")

    def _follow(self, collection: Collection) -> None:
        """What Redis announces is followed at once; since Redis may forget, the store is asked now and then as well."""
        name, now = collection.manifest.collection, self._clock()
        due = now - self._looked.setdefault(name, now) >= _LOOK_AT_THE_STORE_S
        if due:
            self._looked[name] = now
        if (due or collection.announced()) and collection.follow():
            logger.info("Collection %s: generation %d is in force", name, collection.manifest.generation)

    def _compact(self, collection: Collection) -> None:
        """All workers ask in the same words for one generation, so that it is one job; one that failed, on a full disk
        say, is asked for again after a while."""
        if not self._compact_after or collection.changes < self._compact_after:
            return
        manifest, now = collection.manifest, self._clock()
        nonce = f"{manifest.generation}-{sha256_hex(canonical_json(manifest.model_dump(mode='json')))[:16]}"
        if now - self._asked.get(nonce, -_ASK_AGAIN_S) >= _ASK_AGAIN_S:
            self._submit(CompactRequest(collection=manifest.collection, nonce=nonce))
            self._asked = {n: at for n, at in self._asked.items() if now - at < _ASK_AGAIN_S} | {nonce: now}
