"""Purge: deletes what later activations or removals have made obsolete. Never done but on demand.

A protected file may be wanted again at the same moment: an activation whose result is the same bytes stores them under
the same key. So the journal lets no activation of an asset be committed while its files are deleted, and none that
stored its file before; it stores that again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.assets.protected_digests import ProtectedDigests
from tasks.assets.records import AssetRecord
from tasks.documents import delete_document
from tasks.storage import Bucket, ObjectStore
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import BEGINNING, Journal, entry_order

__all__ = ["Obsolete", "obsolete", "purge"]


@dataclass(frozen=True)
class Obsolete:
    """An earlier state of an asset, with the key of its record; `file` is its protected file, None where the asset's
    current state has the same one."""

    why: Literal["superseded", "removed"]
    key: str
    record: AssetRecord
    file: str | None


def obsolete(files: CollectionStore) -> Iterator[list[Obsolete]]:
    """What can be purged, asset by asset, newest first."""
    removals = files.removals.entries()
    for records in files.assets.all():
        newest = records[0][1]
        removal = removals.get(newest.asset_id, BEGINNING)
        removed = entry_order(removal) > entry_order(newest.journal_entry)
        why: Literal["superseded", "removed"] = "removed" if removed else "superseded"
        kept = None if removed else newest.protected_key
        found = [
            Obsolete(why, key, record, record.protected_key if record.protected_key != kept else None)
            for key, record in (records if removed else records[1:])
        ]
        if found:
            yield found


def purge(store: ObjectStore, files: CollectionStore, journal: Journal, check_lock: Callable[[], None]) -> int:
    """Delete protected files, documents and records of obsolete states; returns how many there were.

    Raises:
        CollectionBusy: the collection's lock was lost; what is left can be purged later.
    """
    count = 0
    for states in obsolete(files):
        check_lock()
        count += _purge_asset(store, files, journal, states)
    return count


def _purge_asset(store: ObjectStore, files: CollectionStore, journal: Journal, states: Sequence[Obsolete]) -> int:
    asset_id = states[0].record.asset_id
    unused = journal.begin_purge(asset_id, sorted({state.file for state in states if state.file}))
    try:
        for key in unused:
            store.delete(Bucket.PROTECTED, key)
    finally:
        journal.end_purge(asset_id)
    digests = ProtectedDigests(store)
    for state in states:
        if state.file in unused:
            digests.forget(state.record.protected_sha256, state.record.job_id)
    for state in sorted(states, key=lambda state: state.record.commit, reverse=True):
        delete_document(store, state.record.job_id, state.record.commit)
        files.assets.delete(state.key)  # last: what was not deleted yet is found again
    return len(states)
