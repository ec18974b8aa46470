"""What the commands of ``aii index`` work on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click
import redis

from tasks.app import Sender, create_app
from tasks.connection import connect_redis, redis_address
from tasks.ledger import Ledger
from tasks.names import check_collection
from tasks.settings import Settings, state_dir
from tasks.storage import ObjectStore

if TYPE_CHECKING:
    from workers.index.journal import Journal
    from workers.index.manifest import CollectionStore

__all__ = ["Opened", "counted", "open_collection"]


@dataclass(frozen=True)
class Opened:
    """One collection by name, which may not exist yet; connections are made when they are needed."""

    settings: Settings
    name: str
    store: ObjectStore

    @cached_property
    def files(self) -> CollectionStore:
        from workers.index.manifest import CollectionStore  # noqa: PLC0415  # loads torch: not for `aii --help`

        return CollectionStore(self.store, self.name, state_dir() / "cache")

    @cached_property
    def redis(self) -> redis.Redis:
        return connect_redis(self.settings)

    @property
    def address(self) -> str:
        return redis_address(self.settings)

    @cached_property
    def journal(self) -> Journal:
        from workers.index.journal import Journal  # noqa: PLC0415

        return Journal(self.redis, self.address, self.name)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.connect(self.settings)

    @cached_property
    def sender(self) -> Sender:
        return Sender(create_app(self.settings), self.settings)


def open_collection(settings: Settings, name: str) -> Opened:
    """Raises InvalidCollectionName, and StorageUnavailable when S3 does not answer."""
    store = ObjectStore.connect(settings)
    store.ensure_buckets()
    return Opened(settings, check_collection(name), store)


@contextmanager
def counted(what: str) -> Iterator[Callable[[int], None]]:
    """A line that counts, on a terminal; otherwise nothing."""
    shown = sys.stderr.isatty()
    yield lambda count: click.echo(f"\r{what}: {count:,}", nl=False, err=True) if shown else None
    if shown:
        click.echo(err=True)
