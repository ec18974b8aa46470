"""The collections this process has opened."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path

from tasks.assets.feedback import Feedback
from tasks.connection import RedisClient
from tasks.errors import CollectionMissing, NotReady
from tasks.monitoring.presence import CollectionState
from tasks.results import ExtractorIdentity
from tasks.storage import ObjectStore
from workers.index.collection.collection import Collection
from workers.index.collection.files import CollectionStore, prune
from workers.index.collection.finder import Peers
from workers.index.collection.journal import Journal
from workers.index.collection.lock import WriteLock, write_lock


class OpenCollections:
    """Opens a collection at its first use and keeps it. Thread-safe.

    Args:
        peers: the other shards, where there are any.
    """

    def __init__(
        self,
        store: ObjectStore,
        client: RedisClient,
        cache: Path,
        extractor: ExtractorIdentity,
        peers: Peers | None = None,
    ) -> None:
        self._peers = peers
        self.store = store
        self.client = client
        self._cache = cache
        self._extractor = extractor
        prune(cache)
        self._open: dict[str, Collection] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Collection:
        """Raises CollectionMissing, ExtractorMismatch, CorruptSegment: see :class:`Collection`."""
        with self._lock:
            opening = self._opening.setdefault(name, threading.Lock())
        with opening:  # one name's download keeps no other name waiting
            if name not in self._open:
                collection = Collection(self.files(name), self.journal(name), self._extractor, self._peers)
                with self._lock:
                    self._open[name] = collection
            return self._open[name]

    def if_open(self, name: str) -> Collection | None:
        """A collection that is open already."""
        with self._lock:
            return self._open.get(name)

    def check_incarnation(self, name: str, incarnation: str) -> None:
        """Raise unless what was made for this incarnation of a collection can still be registered; what is open here is
        the present one then.

        Raises:
            CollectionMissing, ExtractorMismatch: it was deleted, or another extractor's has its name.
            NotReady: there is another one of its name, or Redis has forgotten which one it is: make it again.
        """
        if self.journal(name).incarnation() == incarnation:
            return
        try:
            self.get(name).follow()
        except CollectionMissing:
            self.close(name)
            raise
        raise NotReady(f"Collection {name!r} was built again at this moment.")

    def close(self, name: str) -> None:
        """Forget a collection that was deleted, so that its next job fails with CollectionMissing."""
        with self._lock:
            self._open.pop(name, None)

    def check(self) -> None:
        """Raise NotReady while none is open: where the starter does not fit the extractor, the first job opens one."""
        if not self.opened():
            raise NotReady("No collection is mapped yet: build one for this extractor, and use it.")

    def states(self) -> list[CollectionState]:
        """Of all that are open."""
        return [
            CollectionState(
                name=collection.manifest.collection,
                generation=collection.manifest.generation,
                factory=collection.manifest.factory,
                vectors=collection.vectors,
                journal=collection.changes,
            )
            for collection in self.opened()
        ]

    def opened(self) -> list[Collection]:
        with self._lock:
            return list(self._open.values())

    def files(self, name: str) -> CollectionStore:
        """Where the collection's files are published and cached."""
        return CollectionStore(self.store, name, self._cache)

    def feedback(self, name: str) -> Feedback:
        """What people said of matches in the collection."""
        return Feedback(self.client, self.store, name)

    def journal(self, name: str) -> Journal:
        return Journal(self.client, name)

    def write_lock(self, name: str) -> AbstractContextManager[WriteLock]:
        """Hold the collection's lock; see :func:`workers.index.collection.lock.write_lock`."""
        return write_lock(self.client, name)
