"""Removal of everything that an image is in, by the digest of its bytes: of an original, or of a protected file.

protected/sources/{sha256}/{sha256 of collection and asset}.json  an asset that was activated from these bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from tasks.assets.journal import AssetJournal
from tasks.assets.notes import read_note
from tasks.assets.protected_digests import ProtectedDigests
from tasks.assets.records import AssetRecords, look_up, remove
from tasks.assets.removals import Removals
from tasks.connection import RedisClient
from tasks.errors import CorruptSegment
from tasks.ledger.commits import AssetState
from tasks.messages import Frozen
from tasks.names import sha256_hex
from tasks.results import ActivationResult
from tasks.storage import Bucket, ObjectStore

__all__ = ["AssetName", "Found", "SourceDigests", "Takedown"]


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

    def keys(self, sha256: str) -> Iterator[str]:
        """The notes of such assets; some may have another source since."""
        return self._store.list_keys(Bucket.PROTECTED, f"sources/{sha256}/")

    def asset(self, key: str) -> AssetName | None:
        """Whom a note names; None for one that has just gone. Raises CorruptSegment when it is damaged."""
        note = read_note(self._store, Bucket.PROTECTED, key, _Note, "delete it once its asset is removed by name")
        return AssetName(note.collection, note.asset_id) if note else None


@dataclass(frozen=True)
class Found:
    """The assets of an image, as far as they could be read, and what could not."""

    assets: list[AssetName]
    damage: list[str]

    def check(self) -> None:
        """Raise CorruptSegment when there may be more assets: to be called when these are removed."""
        if self.damage:
            raise CorruptSegment(f"More assets may be of this image. {' '.join(self.damage)}")


class _Damage(list[str]):
    """What could not be read. One damaged note must not keep the other assets of an image."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        try:
            yield
        except CorruptSegment as error:
            self.append(error.message)


class Takedown:
    """Finds and removes the assets of an image, in all collections."""

    def __init__(self, client: RedisClient, store: ObjectStore) -> None:
        self._client = client
        self._store = store

    def find(self, sha256: str) -> Found:
        """The registered assets whose original, or whose protected file, has this digest."""
        damage = _Damage()
        candidates = self._candidates(sha256, damage)
        return Found([name for name in sorted(candidates) if _is_of(self._state(name, damage), sha256)], damage)

    def _candidates(self, sha256: str, damage: _Damage) -> set[AssetName]:
        candidates, sources, digests = set[AssetName](), {sha256}, SourceDigests(self._store)
        with damage.noted():
            if noted := ProtectedDigests(self._store).asset_of(sha256):
                candidates.add(AssetName(*noted))
                if state := self._state(AssetName(*noted), damage):  # the same bytes for each asset of one source
                    sources.add(state.source_sha256)
        collections = [name.rstrip("/") for name in self._store.folders(Bucket.COLLECTIONS)]
        for source in sources - {""}:
            candidates |= {AssetName(collection, source) for collection in collections}
            for key in digests.keys(source):
                with damage.noted():
                    if name := digests.asset(key):
                        candidates.add(name)
        return candidates

    def remove(self, name: AssetName) -> None:
        """From the next query on, it is not found. Its files stay, until `aii index purge`."""
        remove(*self._parts(name.collection), name.asset_id)

    def _state(self, name: AssetName, damage: _Damage) -> AssetState | None:
        with damage.noted():
            return look_up(*self._parts(name.collection), name.asset_id).state
        return None

    def _parts(self, collection: str) -> tuple[AssetJournal, AssetRecords, Removals]:
        return (
            AssetJournal(self._client, collection),
            AssetRecords(self._store, collection),
            Removals(self._store, collection),
        )


def _is_of(state: AssetState | None, sha256: str) -> bool:
    return state is not None and sha256 in (state.source_sha256, state.protected_sha256)
