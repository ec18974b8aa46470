"""A collection as one file, to be taken to another Redis and S3: a tar file, not compressed, as codes do not shrink.

manifest.json                       the current generation
objects/{sha256}                    its files
assets/, removed/, feedback/        what is kept of assets, as in S3 (see tasks/README.md, S3 keys)
protected/{key}                     protected files and the notes of their digests, where they were asked for
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from tasks.errors import CollectionExists, CorruptSegment, InvalidRequest
from tasks.files import part_file, replacing
from tasks.names import check_collection, sha256_hex
from tasks.storage import Bucket, ObjectStore
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal, entry_order
from workers.index.collection.lock import WriteLock
from workers.index.collection.manifest import Manifest, of_newer_version
from workers.index.collection.pinned import publish
from workers.index.maintenance.repair import repair

__all__ = ["export_collection", "import_collection", "manifest_in"]

_MANIFEST: Final = "manifest.json"
_FOLDERS: Final = ("assets", "removed", "feedback")
_MARK: Final = "assets-recorded.json"
_MOST_BYTES: Final = 1 << 28  # of anything but a file of the index
_OBJECT: Final = re.compile(r"objects/([0-9a-f]{64})")


def export_collection(
    store: ObjectStore, files: CollectionStore, manifest: Manifest, path: Path, *, images: bool
) -> int:
    """Write the generation to a file, which appears when it is whole; returns how many members it has.

    Args:
        images: with the protected files of the collection.

    Raises:
        CorruptSegment: a file of the collection is damaged.
        OSError: the file cannot be written.
    """
    count = 0
    with replacing(path) as part, tarfile.open(part, "w") as archive:
        _add(archive, _MANIFEST, manifest.model_dump_json(indent=2).encode())
        for digest in sorted(manifest.digests):
            archive.add(files.fetch(digest), f"objects/{digest}", filter=_plain)
        for bucket, key, name in _documents(store, manifest, images=images):
            _add(archive, name, store.get(bucket, key, _MOST_BYTES))
            count += 1
    return 1 + len(manifest.digests) + count


def manifest_in(path: Path) -> Manifest:
    """The manifest of an exported collection; raises InvalidRequest where the file is none that this version reads."""
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
            if first is not None and first.name == _MANIFEST:
                return Manifest.model_validate_json(_read(archive, first))
    except (tarfile.TarError, ValidationError) as error:
        if isinstance(error, ValidationError) and of_newer_version(error):
            raise InvalidRequest(f"{path} was written by a newer version: upgrade this one first.") from error
    raise InvalidRequest(f"{path} is no exported collection: make one with `aii index export`.")


@dataclass
class _Importing:
    """Where the members go, and which files of the index have come."""

    store: ObjectStore
    files: CollectionStore
    name: str
    seen: set[str] = field(default_factory=set)

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Store one member; one that does not belong into an export is refused."""
        if found := _OBJECT.fullmatch(member.name):
            self._object(archive, member, found[1])
        elif member.name.partition("/")[0] in _FOLDERS or member.name == _MARK:
            self._document(Bucket.COLLECTIONS, f"{self.name}/{member.name}", _read(archive, member))
        elif member.name.startswith(("protected/digests/", f"protected/{self.name}/")):
            self._document(Bucket.PROTECTED, member.name.removeprefix("protected/"), _read(archive, member))
        elif member.name != _MANIFEST:
            raise InvalidRequest(f"{member.name[:100]!r} does not belong into an exported collection.")

    def _object(self, archive: tarfile.TarFile, member: tarfile.TarInfo, digest: str) -> None:
        source = archive.extractfile(member)
        folder = self.files.workspace.parent
        folder.mkdir(parents=True, exist_ok=True)
        with part_file(folder) as part:
            with part.open("wb") as target:
                while source and (chunk := source.read(1 << 20)):
                    target.write(chunk)
            if self.files.upload(part) != digest:
                raise CorruptSegment(f"{member.name} is damaged in the file: export the collection again.")
        self.seen.add(digest)

    def _document(self, bucket: Bucket, key: str, data: bytes) -> None:
        digest = re.search(r"/([0-9a-f]{64})\.[a-z]+$", key)
        if bucket is Bucket.PROTECTED and digest and "/assets/" in key and sha256_hex(data) != digest[1]:
            raise CorruptSegment(f"{key} is damaged in the file: export the collection again.")
        self.store.put(bucket, key, data, "application/json" if key.endswith(".json") else "application/octet-stream")


def import_collection(
    store: ObjectStore, files: CollectionStore, journal: Journal, path: Path, lock: WriteLock,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Manifest:  # fmt: skip
    """Publish an exported collection under its own name; returns its manifest. It can be repeated after an
    interruption: the collection appears when everything is there.

    Raises:
        InvalidRequest: the file is no exported collection.
        CollectionExists: there is one of that name.
        CorruptSegment: the file is damaged or incomplete.
    """
    manifest = manifest_in(path).model_copy(update={"settled": None})  # which was of another bucket of documents
    name = check_collection(manifest.collection)
    if files.is_published():
        raise CollectionExists(
            f"There is a collection {name!r} already: delete it first with `aii index delete {name}`."
        )
    importing = _Importing(store, files, name)
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isreg():
                    raise InvalidRequest(f"{member.name[:100]!r} is no plain file: this is no exported collection.")
                importing.take(archive, member)
    except tarfile.TarError as error:
        raise CorruptSegment(f"{path} is damaged: {error}.") from error
    if missing := manifest.digests - importing.seen:
        raise CorruptSegment(f"{path} lacks {len(missing)} of the collection's files: export it again.")
    lock.check()
    journal.settling.forget()
    journal.begin_incarnation()
    publish(files, journal, manifest)
    repair(store, files, journal, progress)  # the journal goes on after the entries that it had there
    return manifest


def _documents(store: ObjectStore, manifest: Manifest, *, images: bool) -> Iterator[tuple[Bucket, str, str]]:
    """Bucket, key and the member's name of what is exported beside the index's own files."""
    root = f"{manifest.collection}/"
    for folder in _FOLDERS:
        for key in store.list_keys(Bucket.COLLECTIONS, f"{root}{folder}/"):
            if folder != "assets" or _covered(key, manifest):
                yield Bucket.COLLECTIONS, key, key.removeprefix(root)
    if store.exists(Bucket.COLLECTIONS, f"{root}{_MARK}"):
        yield Bucket.COLLECTIONS, f"{root}{_MARK}", _MARK
    for key in store.list_keys(Bucket.PROTECTED, root) if images else ():
        yield Bucket.PROTECTED, key, f"protected/{key}"
        note = f"digests/{Path(key).stem}.json"
        if store.exists(Bucket.PROTECTED, note):
            yield Bucket.PROTECTED, note, f"protected/{note}"


def _covered(key: str, manifest: Manifest) -> bool:
    """Whether a record is of what the segments hold, not of an activation since."""
    return entry_order(Path(key).stem) <= entry_order(manifest.journal_entry)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without names and times of this machine."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MOST_BYTES:
        raise InvalidRequest(f"{member.name[:100]!r} is too large for what it should be.")
    source = archive.extractfile(member)
    return source.read() if source else b""
