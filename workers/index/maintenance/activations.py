"""What S3 says of a collection's assets, gathered in a local file: SQLite. Memory does not grow with their number.

Each document is read once, so that a reader that was interrupted goes on with the others. They are known by their keys
and by their tags in the store; where one that counted is not there any more, all are read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tasks.assets.removals import Removals
from tasks.bounded_map import bounded_map
from tasks.errors import CollectionBusy, DiskUnavailable
from tasks.names import canonical_json, sha256_hex
from tasks.results import ActivationResult
from tasks.storage import ObjectStore
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import BEGINNING, entry_order
from workers.index.collection.manifest import Manifest
from workers.index.maintenance.document_list import Listed, Unordered, listed
from workers.index.maintenance.documents import Activation, Read, documents_at

__all__ = ["Activations", "OnRecord", "activations_of"]

_FORMAT: Final = 2  # of the file; another one for other tables, or another meaning of them
_DOCUMENTS_AT_ONCE: Final = 500
_READERS: Final = 64  # they mostly wait for S3
_ASSETS_AT_ONCE: Final = 2_000

# State of a document: not read yet; of something else; unreadable; an activation of the collection.
_UNREAD, _OTHER, _UNREADABLE, _COUNTED = range(4)

_SETTINGS: Final = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"

# `name` is a key and a tag. `activated` and `removed` are entries of the journal as :func:`_sortable` writes them.
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS documents (
    name TEXT PRIMARY KEY, listed INTEGER NOT NULL DEFAULT 1, state INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS assets (
    asset_id TEXT PRIMARY KEY, activated TEXT NOT NULL DEFAULT '', activation TEXT, removed TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (job_id TEXT, asset_id TEXT, PRIMARY KEY (job_id, asset_id)) WITHOUT ROWID;
"""
_LIST: Final = "INSERT INTO documents (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET listed = 1"
_ADD: Final = """
INSERT INTO assets (asset_id, activated, activation) VALUES (?, ?, ?) ON CONFLICT (asset_id)
DO UPDATE SET activated = excluded.activated, activation = excluded.activation WHERE excluded.activated > activated
"""
_REMOVE: Final = """
INSERT INTO assets (asset_id, removed) VALUES (?, ?) ON CONFLICT (asset_id) DO UPDATE SET removed = excluded.removed
"""
_SUPERSEDED: Final = """
SELECT jobs.job_id, json_extract(assets.activation, '$.job_id') AS newest FROM jobs JOIN assets USING (asset_id)
WHERE newest != jobs.job_id
"""


@dataclass(frozen=True)
class OnRecord:
    """An asset's newest activation, None where it has none, and the journal's entry of its last removal."""

    asset_id: str
    activation: Activation | None
    removal: str

    @property
    def current(self) -> Activation | None:
        """The activation, unless the asset was removed since."""
        found = self.activation
        return found if found and entry_order(found.journal_entry) > entry_order(self.removal) else None


@contextmanager
def activations_of(
    files: CollectionStore, manifest: Manifest, purpose: str, before_ms: int | None = None
) -> Iterator[Activations]:
    """Open the file of a purpose and a time, which at most one process of a machine does at once.

    Args:
        before_ms: documents that the store changed before this time (ms, its clock) are not read.

    Raises:
        CollectionBusy: another one does.
        DiskUnavailable: the file cannot be written, or is damaged.
    """
    codecs = [manifest.codec, *(known.digest for known in manifest.codecs)]
    said = [_FORMAT, files.addresses, manifest.extractor.model_dump(), codecs, before_ms]
    pinned = sha256_hex(canonical_json(said))
    files.prune()
    path = files.reading / f"{purpose}-{pinned[:16]}.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskUnavailable(f"{path.parent} cannot be made ({error}): free some space.") from error
    try:
        with closing(sqlite3.connect(path, timeout=0)) as database:
            yield Activations(database, path, before_ms)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise CollectionBusy(f"Another process reads the documents of {manifest.collection!r}: {path}.") from error
        raise DiskUnavailable(f"{path} cannot be written ({error}): free some space.") from error
    except sqlite3.DatabaseError as error:
        path.unlink(missing_ok=True)
        raise DiskUnavailable(f"{path} was damaged ({error}), and is deleted: repeat this.") from error


class Activations:
    """What was read so far. Not thread-safe.

    Attributes:
        listed, passed_over: how many documents the store has, and how many of them were not to be read.
    """

    def __init__(self, database: sqlite3.Connection, path: Path, before_ms: int | None) -> None:
        self._database = database
        self._path = path
        self._before_ms = before_ms
        self.listed = self.passed_over = 0
        database.executescript(_SETTINGS + _TABLES)

    def delete(self) -> None:
        """Delete the file, when it is closed: its purpose is served."""
        self._path.unlink(missing_ok=True)

    # ── reading the store ────────────────────────────────────────────────────────────────────────────────────────────

    def read(
        self, store: ObjectStore, removals: Removals, belongs: Callable[[ActivationResult], bool],
        progress: Callable[[int, int], None], counted: Callable[[Sequence[ActivationResult]], None] | None = None,
    ) -> None:  # fmt: skip
        """Read what is new in the store, and all removals.

        Args:
            belongs: whether a document counts, see :func:`workers.index.maintenance.documents.belonging`.
            progress: called with the number of documents read, and of all that are new.
            counted: is given those documents that count, some at a time, before they do; after an interruption some
                come again.
        """
        self._list(store)
        total, done = self._count("documents", f"state = {_UNREAD}"), 0
        read = bounded_map(partial(_read, store), self._unread(), _READERS)
        while some := list(islice(read, _DOCUMENTS_AT_ONCE)):
            self._note(some, belongs, counted)
            done += len(some)
            progress(done, total)
        with self._database as database:
            database.execute("DELETE FROM assets WHERE activation IS NULL")  # of a removal that may be gone by now
            database.execute("UPDATE assets SET removed = ''")
            database.executemany(_REMOVE, ((asset, _sortable(entry)) for asset, entry in removals.each()))

    def _list(self, store: ObjectStore) -> None:
        try:
            self._take(listed(store, self._before_ms, in_shares=True))
        except Unordered:
            self._take(listed(store, self._before_ms, in_shares=False))

    def _take(self, documents: Iterator[Listed]) -> None:
        self.listed = self.passed_over = 0
        with self._database as database:
            database.execute("UPDATE documents SET listed = 0")
            database.execute("UPDATE documents SET state = ? WHERE state = ?", (_UNREAD, _UNREADABLE))
            for some in documents:
                database.executemany(_LIST, ((name,) for name in some.names))
                self.listed += len(some.names) + some.passed_over
                self.passed_over += some.passed_over
            if self._count("documents", f"NOT listed AND state = {_COUNTED}"):  # S3 was set back, or a purge was done
                database.execute("DELETE FROM assets")
                database.execute("DELETE FROM jobs")
                database.execute("UPDATE documents SET state = ?", (_UNREAD,))
            database.execute("DELETE FROM documents WHERE NOT listed")

    def _unread(self) -> Iterator[str]:
        query, last = "SELECT name FROM documents WHERE name > ? AND state = ? ORDER BY name LIMIT ?", ""
        while names := self._database.execute(query, (last, _UNREAD, _ASSETS_AT_ONCE)).fetchall():
            yield from (name for (name,) in names)
            (last,) = names[-1]

    def _note(
        self, some: list[tuple[str, Read]], belongs: Callable[[ActivationResult], bool],
        counted: Callable[[Sequence[ActivationResult]], None] | None,
    ) -> None:  # fmt: skip
        states, results = [], []
        for name, read in some:
            if not read:  # deleted since it was listed: read later, if it is listed again
                continue
            state = _UNREADABLE if None in read else _OTHER
            for result in read:
                if isinstance(result, ActivationResult) and belongs(result):
                    state = _COUNTED
                    results.append(result)
            states.append((state, name))
        if counted:
            counted(results)
        kept = map(Activation.of, results)
        rows = [(one.asset_id, _sortable(one.journal_entry), one.model_dump_json()) for one in kept]
        with self._database as database:
            database.executemany(_ADD, rows)
            database.executemany("UPDATE documents SET state = ? WHERE name = ?", states)

    def note_jobs(self, some: Sequence[ActivationResult]) -> None:
        """Keep which jobs some documents are of, for :meth:`superseded`."""
        with self._database as database:
            rows = [(one.job_id, one.asset_id) for one in some]
            database.executemany("INSERT OR IGNORE INTO jobs (job_id, asset_id) VALUES (?, ?)", rows)

    # ── what was read ────────────────────────────────────────────────────────────────────────────────────────────────

    def __len__(self) -> int:
        """Assets that have been activated."""
        return self._count("assets", "activation IS NOT NULL")

    @property
    def unreadable(self) -> int:
        """Documents of any kind that cannot be read."""
        return self._count("documents", f"state = {_UNREADABLE}")

    @property
    def current_count(self) -> int:
        """Assets whose activation is current."""
        return self._count("assets", "activated > removed")

    @property
    def last_entry(self) -> str:
        """The last entry of the journal that an activation or a removal names."""
        ((entry,),) = self._database.execute("SELECT max(max(activated, removed)) FROM assets")
        return _entry(entry)

    def newest(self, asset_id: str) -> Activation | None:
        """The newest activation of an asset, which may have been removed since."""
        found = self._database.execute("SELECT activation FROM assets WHERE asset_id = ?", (asset_id,)).fetchone()
        return Activation.model_validate_json(found[0]) if found and found[0] else None

    def get(self, asset_id: str) -> Activation | None:
        """The current activation of an asset."""
        query = "SELECT activation FROM assets WHERE asset_id = ? AND activated > removed"
        found = self._database.execute(query, (asset_id,)).fetchone()
        return Activation.model_validate_json(found[0]) if found else None

    def current(self) -> Iterator[Activation]:
        """The current activation of each asset that has one."""
        for some in self.each():
            yield from filter(None, (one.current for one in some))

    def each(self) -> Iterator[list[OnRecord]]:
        """All assets, some at a time."""
        query = "SELECT asset_id, activation, removed FROM assets WHERE asset_id > ? ORDER BY asset_id LIMIT ?"
        last = ""
        while rows := self._database.execute(query, (last, _ASSETS_AT_ONCE)).fetchall():
            yield [_on_record(*row) for row in rows]
            last = rows[-1][0]

    def superseded(self) -> Iterator[dict[str, str]]:
        """Of the jobs that were noted, those that are not their asset's newest, and that one; some at a time. To be
        called when everything is read."""
        found = self._database.execute(_SUPERSEDED)
        while rows := found.fetchmany(_ASSETS_AT_ONCE):
            yield dict(rows)

    def _count(self, table: str, condition: str) -> int:
        ((count,),) = self._database.execute(f"SELECT count(*) FROM {table} WHERE {condition}")  # constants
        return int(count)


def _read(store: ObjectStore, name: str) -> tuple[str, Read]:
    return name, documents_at(store, name.rpartition("\n")[0])


def _on_record(asset_id: str, activation: str | None, removed: str) -> OnRecord:
    kept = Activation.model_validate_json(activation) if activation else None
    return OnRecord(asset_id, kept, _entry(removed))


def _sortable(entry: str) -> str:
    """An entry of the journal, so that texts are in the order of entries."""
    return "{:020d}{:020d}".format(*entry_order(entry))


def _entry(sortable: Any) -> str:
    return f"{int(sortable[:20])}-{int(sortable[20:])}" if sortable else BEGINNING
