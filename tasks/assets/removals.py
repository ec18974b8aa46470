"""Removals of assets, noted in S3, so that they outlast the loss of Redis.

`collections/{name}/removed/{asset_key}.json` holds the journal entry of the asset's last removal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import Field

from tasks.assets.notes import read_note
from tasks.bounded_map import bounded_map
from tasks.messages import Frozen
from tasks.names import asset_key
from tasks.storage import Bucket, ObjectStore

__all__ = ["Removals"]

_READERS: Final = 16


class _Note(Frozen):
    journal_entry: str = Field(pattern=r"^\d+-\d+$")
    asset_id: str = Field(default="", description='"" in notes of version 0.1.0, whose keys are the asset ids')


class Removals:
    """The removals of one collection. Thread-safe."""

    def __init__(self, store: ObjectStore, collection: str) -> None:
        self._store = store
        self._folder = f"{collection}/removed/"

    def note(self, asset_id: str, entry: str) -> None:
        """Keep a removal, made at a journal entry; it replaces an earlier one of the same asset."""
        document = _Note(journal_entry=entry, asset_id=asset_id).model_dump_json().encode()
        self._store.put(Bucket.COLLECTIONS, self._key(asset_id), document, "application/json")

    def entry(self, asset_id: str) -> str | None:
        """The journal entry of an asset's last removal; None when it was never removed.

        Raises:
            CorruptSegment: the note is damaged.
        """
        note = self._read(self._key(asset_id))
        return note.journal_entry if note else None

    def entries(self) -> dict[str, str]:
        """All assets that were ever removed, with the journal entries of their last removals; errors as above."""
        return dict(self.each())

    def each(self) -> Iterator[tuple[str, str]]:
        """The same, one after the other."""

        def read(key: str) -> tuple[str, _Note | None]:
            return key, self._read(key)

        keys = self._store.list_keys(Bucket.COLLECTIONS, self._folder)
        for key, note in bounded_map(read, keys, _READERS):
            if note:
                yield note.asset_id or _named_by(key), note.journal_entry

    def _read(self, key: str) -> _Note | None:
        return read_note(self._store, Bucket.COLLECTIONS, key, _Note, "remove the asset again")

    def _key(self, asset_id: str) -> str:
        return f"{self._folder}{asset_key(asset_id)}.json"


def _named_by(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")
