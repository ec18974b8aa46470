"""The collections this process has opened."""

from __future__ import annotations

import threading
from pathlib import Path

import redis

from tasks.results import ExtractorIdentity
from tasks.storage import ObjectStore
from workers.index.collection import Collection
from workers.index.journal import Journal
from workers.index.manifest import CollectionStore


class Collections:
    """Opens a collection at its first use and keeps it. Thread-safe."""

    def __init__(
        self, store: ObjectStore, client: redis.Redis, address: str, cache: Path, extractor: ExtractorIdentity
    ) -> None:
        self._store = store
        self._client = client
        self._address = address
        self._cache = cache
        self._extractor = extractor
        self._open: dict[str, Collection] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Collection:
        """Raises CollectionMissing, ExtractorMismatch, CorruptSegment: see :meth:`Collection.open`."""
        with self._lock:
            if name not in self._open:
                journal = Journal(self._client, self._address, name)
                self._open[name] = Collection.open(self.files(name), journal, self._extractor)
            return self._open[name]

    def files(self, name: str) -> CollectionStore:
        """Where the collection's files are published and cached."""
        return CollectionStore(self._store, name, self._cache)
