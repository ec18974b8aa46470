"""Asset records: what was committed for each asset, in S3, so that it is known when the journal has forgotten it.

collections/{name}/assets/{asset_key}/{entry}.json  one record for each commit, never changed; the highest entry counts
collections/{name}/assets-recorded.json             that assets of version 0.1.0, if there were any, have records too
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import Field

from tasks.assets.journal import MOVED, AssetJournal, Live, entry_order, next_entry
from tasks.assets.notes import read_note
from tasks.assets.removals import Removals
from tasks.bounded_map import bounded_map
from tasks.errors import CorruptSegment
from tasks.ledger.commits import AssetState, JobFacts, Seen
from tasks.messages import Digest, Frozen
from tasks.names import asset_key, canonical_json, sha256_hex
from tasks.results import ActivationResult
from tasks.storage import Bucket, ObjectStore

__all__ = ["AssetRecord", "AssetRecords", "facts_of", "look_up", "remove"]

_READERS: Final = 16


class AssetRecord(Frozen):
    """One committed state of an asset: which job made it, from which image, with which options, and which file it is.

    `commit` is the number of the job's document.
    """

    asset_id: str
    name: str = ""
    journal_entry: str = Field(pattern=r"^\d+-\d+$")
    job_id: str
    commit: int = Field(ge=1)
    source_sha256: Digest
    protected_key: str
    protected_sha256: Digest
    options_sha256: Digest

    @classmethod
    def of(cls, result: ActivationResult, commit: int) -> AssetRecord:
        """The record of a committed activation."""
        facts = facts_of(result)
        return cls(
            asset_id=result.asset_id, name=result.name, journal_entry=result.journal_entry, job_id=facts.job_id,
            commit=commit, source_sha256=facts.source_sha256, protected_key=facts.protected_key,
            protected_sha256=facts.protected_sha256, options_sha256=facts.options_sha256,
        )  # fmt: skip


def facts_of(result: ActivationResult) -> JobFacts:
    """What a journal entry says of the job that made it."""
    options = sha256_hex(canonical_json(result.options.model_dump(mode="json")))
    return JobFacts(result.job_id, result.source_sha256, result.protected_key, result.protected_sha256, options)


class AssetRecords:
    """The records of one collection. Thread-safe."""

    def __init__(self, store: ObjectStore, collection: str) -> None:
        self._store = store
        self._folder = f"{collection}/assets/"
        self._mark = f"{collection}/assets-recorded.json"

    def put(self, record: AssetRecord) -> None:
        """Keep a record; the same one is always the same bytes under the same key."""
        key = f"{self._folder}{asset_key(record.asset_id)}/{record.journal_entry}.json"
        self._store.put(Bucket.COLLECTIONS, key, record.model_dump_json().encode(), "application/json")

    def newest(self, asset_id: str) -> AssetRecord | None:
        """The latest record of an asset.

        Raises:
            CorruptSegment: it is damaged.
        """
        return next(self.of(asset_id), None)

    def of(self, asset_id: str) -> Iterator[AssetRecord]:
        """The records of an asset, newest first; errors as above."""
        keys = self._store.list_keys(Bucket.COLLECTIONS, f"{self._folder}{asset_key(asset_id)}/")
        yield from map(self._read, sorted(keys, key=_order, reverse=True))

    def all(self) -> Iterator[list[tuple[str, AssetRecord]]]:
        """The records of each asset with their keys, newest first; errors as above."""
        by_asset: dict[str, list[str]] = {}
        for key in self._store.list_keys(Bucket.COLLECTIONS, self._folder):
            by_asset.setdefault(key.rpartition("/")[0], []).append(key)
        ordered = (sorted(keys, key=_order, reverse=True) for keys in by_asset.values())
        yield from bounded_map(lambda keys: [(key, self._read(key)) for key in keys], list(ordered), _READERS)

    def delete(self, key: str) -> None:
        self._store.delete(Bucket.COLLECTIONS, key)

    def complete(self) -> bool:
        """Whether every asset has records, those of version 0.1.0 included."""
        return self._store.exists(Bucket.COLLECTIONS, self._mark)

    def mark_complete(self) -> None:
        self._store.put(Bucket.COLLECTIONS, self._mark, b"{}", "application/json")

    def _read(self, key: str) -> AssetRecord:
        record = read_note(self._store, Bucket.COLLECTIONS, key, AssetRecord, "delete it")
        if record is None:
            raise CorruptSegment(f"The asset record {key} has just gone: repeat this.")
        return record


def look_up(
    journal: AssetJournal, records: AssetRecords, removals: Removals, asset_id: str, *, assume: bool = False
) -> Seen:
    """An asset's current state: by the journal, and where that has none, by its newest record. The journal has none of
    what segments cover, nor after Redis was emptied.

    Args:
        assume: do not ask the journal, for a commit, which decides on the journal as it is then.
    """
    live = journal.assumed(asset_id) if assume else journal.live(asset_id)
    return Seen(live.announcements, _current(live, records, removals, asset_id), live.purges)


def remove(journal: AssetJournal, records: AssetRecords, removals: Removals, asset_id: str) -> str:
    """Remove an asset from a collection, so that the next query on any worker does not find it; returns the journal's
    entry.

    The removal is noted in S3 before and after: once begun, it survives the loss of Redis.
    """
    seen = look_up(journal, records, removals, asset_id)
    removals.note(asset_id, next_entry(journal.last_entry()))
    while (entry := journal.remove(asset_id, seen=seen)) == MOVED:
        seen = Seen(journal.live(asset_id).announcements, seen.state)
    removals.note(asset_id, entry)
    journal.recorded(asset_id, entry)
    return entry


def _current(live: Live, records: AssetRecords, removals: Removals, asset_id: str) -> AssetState | None:
    if live.removed or (live.state and live.state.job_id):
        return None if live.removed else live.state
    record = records.newest(asset_id)
    if record is None or (live.state and live.state.entry != record.journal_entry):
        return live.state
    removal = removals.entry(asset_id)
    if removal and entry_order(removal) > entry_order(record.journal_entry):
        return None
    return AssetState(
        record.journal_entry, record.job_id, record.source_sha256, record.protected_key, record.protected_sha256
    )


def _order(key: str) -> tuple[int, int]:
    return entry_order(key.rpartition("/")[2].removesuffix(".json"))
