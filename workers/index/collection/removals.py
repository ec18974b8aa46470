"""Removals of assets, noted in S3, so that they outlast the loss of Redis.

`collections/{name}/removed/{asset_id}.json` holds the journal entry of the asset's last removal.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field, ValidationError

from tasks.errors import CorruptSegment, ObjectMissing
from tasks.messages import Frozen
from tasks.storage import Bucket, ObjectStore
from workers.bounded_map import bounded_map

__all__ = ["Removals"]

_MAX_NOTE_BYTES: Final = 1 << 20
_READERS: Final = 16


class _Note(Frozen):
    journal_entry: str = Field(pattern=r"^\d+-\d+$")


class Removals:
    """The removals of one collection. Thread-safe."""

    def __init__(self, store: ObjectStore, collection: str) -> None:
        self._store = store
        self._folder = f"{collection}/removed/"

    def note(self, asset_id: str, entry: str) -> None:
        """Keep a removal, made at a journal entry; it replaces an earlier one of the same asset."""
        document = _Note(journal_entry=entry).model_dump_json().encode()
        self._store.put(Bucket.COLLECTIONS, self._key(asset_id), document, "application/json")

    def entry(self, asset_id: str) -> str | None:
        """The journal entry of an asset's last removal; None when it was never removed.

        Raises:
            CorruptSegment: the note is damaged.
        """
        key = self._key(asset_id)
        try:
            return _Note.model_validate_json(self._store.get(Bucket.COLLECTIONS, key, _MAX_NOTE_BYTES)).journal_entry
        except ObjectMissing:
            return None
        except ValidationError as error:
            raise CorruptSegment(f"The note of a removal {key} is damaged: remove the asset again.") from error

    def entries(self) -> dict[str, str]:
        """All assets that were ever removed, with the journal entries of their last removals; errors as above."""
        keys = self._store.list_keys(Bucket.COLLECTIONS, self._folder)
        assets = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
        entries = bounded_map(self.entry, assets, _READERS)
        return {asset: entry for asset, entry in zip(assets, entries, strict=True) if entry}

    def _key(self, asset_id: str) -> str:
        return f"{self._folder}{asset_id}.json"
