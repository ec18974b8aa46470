"""A collection as the commands of ``aii index`` use it, without loading torch or FAISS before they need them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.app import Sender, create_app
from tasks.connection import RedisClient, connect_redis
from tasks.ledger.ledger import Ledger
from tasks.names import check_collection
from tasks.settings import Settings
from tasks.state_folder import state_dir
from tasks.storage import ObjectStore

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from workers.index.collection.files import CollectionStore
    from workers.index.collection.journal import Journal
    from workers.index.collection.lock import WriteLock

__all__ = ["Opened", "open_collection"]


@dataclass(frozen=True)
class Opened:
    """Access to one collection, which may not exist yet; connections are made when they are needed."""

    settings: Settings
    name: str
    store: ObjectStore

    @cached_property
    def files(self) -> CollectionStore:
        from workers.index.collection.files import CollectionStore  # noqa: PLC0415  # loads torch: not for `aii --help`

        return CollectionStore(self.store, self.name, state_dir() / "cache")

    @cached_property
    def redis(self) -> RedisClient:
        return connect_redis(self.settings)

    @cached_property
    def journal(self) -> Journal:
        from workers.index.collection.journal import Journal  # noqa: PLC0415

        return Journal(self.redis, self.name)

    def write_lock(self) -> AbstractContextManager[WriteLock]:
        """Hold the collection's lock; see :func:`workers.index.collection.lock.write_lock`."""
        from workers.index.collection.lock import write_lock  # noqa: PLC0415

        return write_lock(self.redis, self.name)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.connect(self.settings)

    @cached_property
    def sender(self) -> Sender:
        return Sender(create_app(self.settings), self.settings)


def open_collection(settings: Settings, name: str, *, create_buckets: bool = False) -> Opened:
    """Access to the collection of this name.

    Args:
        create_buckets: only for a command that writes a new collection; others must report a mistyped bucket.

    Raises:
        InvalidCollectionName: see :func:`tasks.names.check_collection`.
        StorageUnavailable: S3 does not answer, or a bucket is missing.
    """
    store = ObjectStore.connect(settings)
    if create_buckets:
        store.ensure_buckets()
    return Opened(settings, check_collection(name), store)
