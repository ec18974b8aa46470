"""Removal of everything that an image is in, by the digest of its bytes: of an original, or of a protected file.

protected/sources/{sha256}/{sha256 of collection and asset}.json  an asset that was activated from these bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from pydantic import ValidationError

from tasks.assets.journal import AssetJournal
from tasks.assets.protected_digests import ProtectedDigests
from tasks.assets.records import AssetRecords, look_up, remove
from tasks.assets.removals import Removals
from tasks.connection import RedisClient
from tasks.errors import ObjectMissing
from tasks.ledger.commits import AssetState
from tasks.messages import Frozen
from tasks.names import sha256_hex
from tasks.results import ActivationResult
from tasks.storage import Bucket, ObjectStore

__all__ = ["AssetName", "SourceDigests", "Takedown"]

_MAX_BYTES: Final = 1 << 16


class AssetName(NamedTuple):
    """One asset of all collections."""

    collection: str
    asset_id: str


class _Note(Frozen):
    collection: str
    asset_id: str


class SourceDigests:
    """Which assets were activated from which bytes. An asset that is named by its source's digest needs no note."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def note(self, result: ActivationResult) -> None:
        """Keep a committed activation's source."""
        if result.asset_id == result.source_sha256:
            return
        note = _Note(collection=result.collection, asset_id=result.asset_id).model_dump_json().encode()
        key = f"sources/{result.source_sha256}/{sha256_hex(note)}.json"
        self._store.put(Bucket.PROTECTED, key, note, "application/json")

    def assets(self, sha256: str) -> Iterator[AssetName]:
        """Those that were; some may have another source since."""
        for key in self._store.list_keys(Bucket.PROTECTED, f"sources/{sha256}/"):
            try:
                note = _Note.model_validate_json(self._store.get(Bucket.PROTECTED, key, _MAX_BYTES))
            except (ObjectMissing, ValidationError):
                continue
            yield AssetName(note.collection, note.asset_id)


class Takedown:
    """Finds and removes the assets of an image, in all collections."""

    def __init__(self, client: RedisClient, store: ObjectStore) -> None:
        self._client = client
        self._store = store

    def assets(self, sha256: str) -> list[AssetName]:
        """The registered assets whose original, or whose protected file, has this digest."""
        candidates, sources = set[AssetName](), {sha256}
        if noted := ProtectedDigests(self._store).asset_of(sha256):
            candidates.add(AssetName(*noted))
            if state := self._state(AssetName(*noted)):  # the same bytes for each asset of one source
                sources.add(state.source_sha256)
        collections = [name.rstrip("/") for name in self._store.folders(Bucket.COLLECTIONS)]
        for source in sources - {""}:
            candidates |= {AssetName(collection, source) for collection in collections}
            candidates |= {*SourceDigests(self._store).assets(source)}
        return sorted(name for name in candidates if _is_of(self._state(name), sha256))

    def remove(self, name: AssetName) -> None:
        """From the next query on, it is not found. Its files stay, until `aii index purge`."""
        remove(*self._parts(name.collection), name.asset_id)

    def _state(self, name: AssetName) -> AssetState | None:
        return look_up(*self._parts(name.collection), name.asset_id).state

    def _parts(self, collection: str) -> tuple[AssetJournal, AssetRecords, Removals]:
        return (
            AssetJournal(self._client, collection),
            AssetRecords(self._store, collection),
            Removals(self._store, collection),
        )


def _is_of(state: AssetState | None, sha256: str) -> bool:
    return state is not None and sha256 in (state.source_sha256, state.protected_sha256)
