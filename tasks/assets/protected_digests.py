"""Protected files by their digest, so that a copy of one is recognised wherever it lies, and is not protected again.

protected/digests/{sha256}.json  whose protected file has these bytes: its collection, asset and job
"""

from __future__ import annotations

import re

from tasks.assets.notes import read_note
from tasks.errors import AlreadyProtected, CorruptSegment, StorageRefused
from tasks.messages import Frozen
from tasks.names import DIGEST_PATTERN
from tasks.results import ActivationResult
from tasks.storage import Bucket, ObjectStore

__all__ = ["ProtectedDigests"]


class _Note(Frozen):
    collection: str
    asset_id: str
    job_id: str


class ProtectedDigests:
    """The digests of the protected files of all collections. Thread-safe. Each call is one request."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def note(self, result: ActivationResult) -> None:
        """Keep the digest of a committed activation's file, unless that is its original, published as it was."""
        if result.protected_sha256 == result.source_sha256:
            return
        note = _Note(collection=result.collection, asset_id=result.asset_id, job_id=result.job_id)
        key = _key(result.protected_sha256)
        self._store.put(Bucket.PROTECTED, key, note.model_dump_json().encode(), "application/json")

    def asset_of(self, sha256: str) -> tuple[str, str] | None:
        """Collection and asset id of a protected file; None for any other.

        Raises:
            CorruptSegment: the note is damaged.
            StorageRefused: notes may not be read here.
        """
        note = self._read(sha256)
        return (note.collection, note.asset_id) if note else None

    def refuse(self, sha256: str) -> None:
        """Raise AlreadyProtected when an image is a protected file. One who may not read notes is not refused: workers
        ask as well. A damaged note refuses too: by its key, these bytes are a protected file."""
        try:
            note = self._read(sha256)
        except StorageRefused:
            return
        except CorruptSegment as error:
            raise AlreadyProtected(
                f"It is a protected file already; of which asset is not known. {error.message}"
            ) from error
        if note:
            is_digest = re.match(DIGEST_PATTERN, note.asset_id)
            asset = f"{note.asset_id[:16]}…" if is_digest else repr(note.asset_id)
            raise AlreadyProtected(f"It is the protected file of asset {asset} (job {note.job_id}) already.")

    def forget(self, sha256: str, job_id: str) -> None:
        """Delete what is noted of a job's file, which is deleted as well. A damaged note goes too: the next activation
        that makes these bytes writes it again."""
        try:
            note = self._read(sha256)
        except StorageRefused:
            return
        except CorruptSegment:
            note = None
            self._store.delete(Bucket.PROTECTED, _key(sha256))
        if note and note.job_id == job_id:
            self._store.delete(Bucket.PROTECTED, _key(sha256))

    def _read(self, sha256: str) -> _Note | None:
        return read_note(self._store, Bucket.PROTECTED, _key(sha256), _Note, "delete it, or activate its asset again")


def _key(sha256: str) -> str:
    return f"digests/{sha256}.json"
