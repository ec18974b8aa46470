"""C2PA manifests that are kept, so that a copy that lost its own gets it back.

protected/c2pa/stores/{sha256}.c2pa                          a manifest store, under the digest of its bytes
protected/c2pa/ids/{sha256 of the id}.json                   which store has that manifest, of which asset
protected/c2pa/bindings/{sha256 of the value}/{…id}.json     the same, by the value of the soft binding

An identifier is whatever a manifest says: the first asset keeps it, and no later image takes its place.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from tasks.assets.manifest_store import active_id
from tasks.assets.notes import read_note
from tasks.errors import CorruptSegment, NotFound
from tasks.messages import Digest, Frozen
from tasks.names import sha256_hex
from tasks.results import ActivationResult, KeptManifest
from tasks.storage import Bucket, ObjectStore

__all__ = ["ALGORITHM", "MOST_STORE_BYTES", "ManifestNote", "Manifests", "binding_value", "kept_manifest"]

# Not in C2PA's list of algorithms yet. The value is a collection's name, a colon and the asset's code, in base64.
ALGORITHM: Final = "active-image-indexing.1"
MOST_STORE_BYTES: Final = 8 * 2**20


class ManifestNote(Frozen):
    """Whose manifest it is; `sha256` is of its store."""

    manifest_id: str
    sha256: Digest
    collection: str
    asset_id: str
    job_id: str


def binding_value(collection: str, code: bytes) -> str:
    """The soft binding of an asset: base64, as in the assertion `c2pa.soft-binding`."""
    return base64.b64encode(collection.encode() + b":" + code).decode()


def kept_manifest(store: bytes, *, signed: bool) -> KeptManifest | None:
    """What a result document says of a store; None for one that is none, or too large to be kept."""
    manifest_id = active_id(store) if len(store) <= MOST_STORE_BYTES else None
    return KeptManifest(manifest_id=manifest_id, sha256=sha256_hex(store), signed=signed) if manifest_id else None


class Manifests:
    """Thread-safe. Errors are those of :class:`tasks.storage.ObjectStore`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, kept: KeptManifest, store: bytes) -> None:
        """Store the bytes; they are found when :meth:`note` has been called too."""
        self._store.put(Bucket.PROTECTED, _store_key(kept.sha256), store, "application/c2pa")

    def note(self, result: ActivationResult) -> None:
        """Let the manifest of a committed activation be found by its id and by its binding. Notes that are damaged are
        written anew: they name no other asset any more."""
        kept = result.manifest
        if kept is None:
            return
        note = ManifestNote(
            manifest_id=kept.manifest_id, sha256=kept.sha256, collection=result.collection, asset_id=result.asset_id,
            job_id=result.job_id,
        )  # fmt: skip
        try:
            earlier = self._read(_id_key(kept.manifest_id))
        except CorruptSegment:
            earlier = None
        if earlier and (earlier.collection, earlier.asset_id) != (note.collection, note.asset_id):
            return
        value = binding_value(result.collection, base64.b64decode(result.code))
        for key in (_id_key(kept.manifest_id), f"{_folder(value)}{sha256_hex(kept.manifest_id.encode())}.json"):
            self._store.put(Bucket.PROTECTED, key, note.model_dump_json().encode(), "application/json")

    def named(self, manifest_id: str) -> ManifestNote:
        """Raises NotFound, or CorruptSegment when its note is damaged."""
        if note := self._read(_id_key(manifest_id)):
            return note
        raise NotFound(f"No manifest {manifest_id[:256]!r} is kept.")

    def bound(self, value: str) -> Iterator[ManifestNote]:
        """The manifests of assets with this binding; raises CorruptSegment when a note is damaged."""
        for key in self._store.list_keys(Bucket.PROTECTED, _folder(value)):
            if note := self._read(key):
                yield note

    def bytes_of(self, note: ManifestNote) -> bytes:
        """The whole store; raises ObjectMissing, DigestMismatch."""
        return self._store.get_verified(Bucket.PROTECTED, _store_key(note.sha256), note.sha256, MOST_STORE_BYTES)

    def _read(self, key: str) -> ManifestNote | None:
        return read_note(self._store, Bucket.PROTECTED, key, ManifestNote, "activate the manifest's image again")


def _store_key(sha256: str) -> str:
    return f"c2pa/stores/{sha256}.c2pa"


def _id_key(manifest_id: str) -> str:
    return f"c2pa/ids/{sha256_hex(manifest_id.encode(errors='replace'))}.json"


def _folder(value: str) -> str:
    return f"c2pa/bindings/{sha256_hex(value.encode(errors='replace'))}/"
