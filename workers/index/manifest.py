"""Manifests: what a generation of a collection consists of, and how it is published and fetched.

collections/{name}/objects/{sha256}          codec, index and asset files, named by their digests
collections/{name}/generations/{n}.json      the manifest of generation n
collections/{name}/current.json              which generation is in force; written last
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.errors import CollectionMissing, CorruptSegment, DigestMismatch, ObjectMissing
from tasks.messages import Digest, Frozen
from tasks.names import check_collection, sha256_hex
from tasks.results import ExtractorIdentity
from tasks.storage import Bucket, ObjectStore

_MAX_DOCUMENT = 16 * 2**20


class SegmentFiles(Frozen):
    """The two files of a segment, by digest."""

    index: Digest
    assets: Digest
    count: int = Field(ge=0)


class Manifest(Frozen):
    """One generation. `threshold` is the squared L2 distance below which a first match counts, at the false-positive
    rate `threshold_fpr` measured on background images; `journal_entry` is the last entry that the segments cover."""

    collection: str
    generation: int = Field(ge=1)
    factory: str
    extractor: ExtractorIdentity
    codec: Digest
    segments: list[SegmentFiles]
    journal_entry: str
    threshold: float | None
    threshold_fpr: float | None
    created_at: str


class _Current(Frozen):
    generation: int
    sha256: Digest


class CollectionStore:
    """Publishes and fetches the files of one collection. Thread-safe."""

    def __init__(self, store: ObjectStore, collection: str, cache: Path) -> None:
        self._store = store
        self._name = check_collection(collection)
        self._cache = cache

    def upload(self, path: Path) -> str:
        """Store a file under its digest, which is returned; a file that is there already is not sent again."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not self._store.exists(Bucket.COLLECTIONS, self._object(digest)):
            self._store.put_file(Bucket.COLLECTIONS, self._object(digest), path)
        return digest

    def publish(self, manifest: Manifest) -> None:
        """Put a generation in force: the manifest first, the pointer to it last."""
        data = manifest.model_dump_json(indent=2).encode()
        self._store.put(Bucket.COLLECTIONS, self._generation(manifest.generation), data, "application/json")
        current = _Current(generation=manifest.generation, sha256=sha256_hex(data))
        self._store.put(
            Bucket.COLLECTIONS, f"{self._name}/current.json", current.model_dump_json().encode(), "application/json"
        )

    def current(self) -> Manifest:
        """The manifest in force.

        Raises:
            CollectionMissing: nothing is published under this name.
            CorruptSegment: the manifest is damaged.
        """
        try:
            pointer = self._store.get(Bucket.COLLECTIONS, f"{self._name}/current.json", _MAX_DOCUMENT)
        except ObjectMissing:
            raise CollectionMissing(
                f"There is no collection {self._name!r}: check the spelling, or use the collection `starter`."
            ) from None
        try:
            current = _Current.model_validate_json(pointer)
            key = self._generation(current.generation)
            data = self._store.get_verified(Bucket.COLLECTIONS, key, current.sha256, _MAX_DOCUMENT)
            return Manifest.model_validate_json(data)
        except (ValidationError, ObjectMissing, DigestMismatch) as error:
            raise CorruptSegment(f"The manifest of collection {self._name!r} is damaged: {error}") from error

    def fetch(self, digest: str) -> Path:
        """A local copy of a file, checked against its digest at every start, since FAISS itself checks nothing."""
        path = self._cache / digest
        if path.exists():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    return path
            path.unlink()
        try:
            return self._store.get_file(Bucket.COLLECTIONS, self._object(digest), digest, path)
        except (ObjectMissing, DigestMismatch) as error:
            raise CorruptSegment(f"Collection {self._name!r}: {error.message}") from error

    def _object(self, digest: str) -> str:
        return f"{self._name}/objects/{digest}"

    def _generation(self, number: int) -> str:
        return f"{self._name}/generations/{number:08d}.json"
