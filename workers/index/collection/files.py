"""The files of a collection, in S3 and as local copies.

collections/{name}/objects/{sha256}                 codec, index files and tables, named by their digests
collections/{name}/generations/{n}-{sha256}.json    the manifest of generation n, named by its own digest as well
collections/{name}/current.json                     which generation is current; written last
collections/{name}/features/{sha256}                features of images, for a build
collections/{name}/assets/{asset_key}/{entry}.json  what was committed, see :mod:`tasks.assets.records`
collections/{name}/removed/{asset_key}.json         an asset's removal, see :mod:`tasks.assets.removals`
collections/{name}/clock                            written to learn the store's time

All processes of a machine share one folder of local copies, named by their digests too.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from tasks.assets.records import AssetRecords
from tasks.assets.removals import Removals
from tasks.documents import document_keys
from tasks.errors import (
    CollectionMissing,
    CorruptSegment,
    DigestMismatch,
    DiskUnavailable,
    NotFound,
    NotReady,
    ObjectMissing,
)
from tasks.files import PART_PREFIX
from tasks.names import check_collection, sha256_hex
from tasks.options import problems_of
from tasks.shards import Shard
from tasks.storage import Bucket, ObjectStore
from workers.index.codec.list_blocks import Part, block_digests
from workers.index.collection.checked import CheckedFiles
from workers.index.collection.manifest import ListBlocks, Manifest, Pointer, SegmentFiles, of_newer_version
from workers.index.collection.parts import download_part
from workers.index.collection.segment import SegmentPaths
from workers.index.collection.text_table import TextTable

__all__ = ["KEPT_GENERATIONS", "CollectionStore", "prune"]

logger = logging.getLogger(__name__)

_MAX_DOCUMENT: Final = 16 * 2**20
_MAX_FEATURES: Final = 64 * 2**20
KEPT_GENERATIONS: Final = 3
_UNUSED_S: Final = 7 * 86_400
_HALF_DONE_S: Final = 3_600
_READING: Final = ".reading"
# Of inverted lists that shards fetch in parts. Smaller ones are fetched whole: three requests and a header take longer,
# and the manifest, which every worker reads for every generation, does not grow by their blocks.
_LEAST_DIVIDED: Final = 1 << 20
_CHECKED: Final = CheckedFiles()  # of this process, whose stores are many


class CollectionStore:
    """Publishes and fetches the files of one collection. Thread-safe."""

    def __init__(self, store: ObjectStore, collection: str, cache: Path) -> None:
        self._store = store
        self._name = check_collection(collection)
        self._cache = cache
        self.removals = Removals(store, self._name)
        self.assets = AssetRecords(store, self._name)

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._name

    @property
    def workspace(self) -> Path:
        """A folder for the writer of the next generation; see :mod:`workers.index.collection.workspace`."""
        return self._cache / ".writing" / self._name

    @property
    def reading(self) -> Path:
        """A folder for what was read of result documents; see :mod:`workers.index.maintenance.activations`."""
        return self._cache / _READING / self._name

    @property
    def addresses(self) -> list[str]:
        """Of the buckets that hold a collection and its result documents."""
        return [self._store.address(bucket) for bucket in (Bucket.COLLECTIONS, Bucket.RESULTS)]

    def now_ms(self) -> int:
        """The store's clock."""
        return self._store.now_ms(Bucket.COLLECTIONS, f"{self._name}/clock")

    def has_documents(self) -> bool:
        """Whether the store has any result document, of whatever job."""
        return next(document_keys(self._store), None) is not None

    def prune(self) -> None:
        """Delete what is not used any more of all collections' local files: see :func:`prune`."""
        prune(self._cache)

    def upload(self, path: Path) -> str:
        """Store a file under its digest, which is returned; not sent again when it is stored already with this size."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if self._stored_bytes(digest) != path.stat().st_size:
            self._store.put_file(Bucket.COLLECTIONS, self._object(digest), path)
        return digest

    def upload_segment(self, paths: SegmentPaths) -> SegmentFiles:
        """Store the files of a segment."""
        index, assets, meta = (self.upload(path) for path in (paths.index, paths.assets, paths.meta))
        lookup, features = (self.upload(path) if path else None for path in (paths.lookup, paths.features))
        return SegmentFiles(
            index=index, assets=assets, meta=meta, lookup=lookup, features=features,
            count=len(TextTable(paths.assets)), blocks=_blocks(paths.index),
        )  # fmt: skip

    def lacks_blocks(self, files: SegmentFiles) -> bool:
        """Whether a segment, of a codec with cells, would have blocks if it were written again."""
        return files.blocks is None and (self._stored_bytes(files.index) or 0) >= _LEAST_DIVIDED

    def fetch_segment(self, files: SegmentFiles, shard: Shard | None = None) -> SegmentPaths:
        """Local copies of a segment's files; errors as in :meth:`fetch`.

        Args:
            shard: whose inverted lists alone are needed; None for all.
        """
        part = files.part_of(shard)
        index = self._fetch_part(files.index, part) if part else self.fetch(files.index)
        assets, meta = map(self.fetch, (files.assets, files.meta))
        lookup, features = (self.fetch(digest) if digest else None for digest in (files.lookup, files.features))
        return SegmentPaths(index, assets, meta, lookup, features, tuple(map(self.fetch, files.hidden)), bool(part))

    def keep(self, files: SegmentFiles, shard: Shard | None = None) -> None:
        """Note that local copies of a segment's files, which are open, are in use: see :func:`prune`."""
        for name in files.copies(shard):
            with suppress(FileNotFoundError):
                _note_use(self._cache / name)

    def upload_features(self, features: npt.NDArray[np.float32]) -> str:
        """Store features (N, D) for a build under their digest, which is returned."""
        data = np.ascontiguousarray(features, dtype="<f4").tobytes()
        digest = sha256_hex(data)
        self._store.put(Bucket.COLLECTIONS, self._features(digest), data, "application/octet-stream")
        return digest

    def download_features(self, digest: str, dimension: int) -> npt.NDArray[np.float32]:
        """The features (N, dimension) of that digest; raises ObjectMissing, DigestMismatch."""
        data = self._store.get_verified(Bucket.COLLECTIONS, self._features(digest), digest, _MAX_FEATURES)
        return np.frombuffer(data, dtype="<f4").reshape(-1, dimension)

    def has_features(self, digest: str) -> bool:
        return self._store.exists(Bucket.COLLECTIONS, self._features(digest))

    def delete_features(self, digest: str) -> None:
        self._store.delete(Bucket.COLLECTIONS, self._features(digest))

    def publish(self, manifest: Manifest) -> None:
        """Make a generation current: the manifest is written first, the pointer to it last. See
        :mod:`workers.index.collection.pinned`."""
        pointer = self.pointer_to(manifest)
        self._put(self._generation(pointer), _written(manifest))
        self._put(self._pointer, pointer.model_dump_json().encode())

    def pointer_to(self, manifest: Manifest) -> Pointer:
        """What names this manifest."""
        return Pointer(generation=manifest.generation, sha256=sha256_hex(_written(manifest)))

    def pointer(self) -> Pointer:
        """What names the current manifest.

        Raises:
            CollectionMissing: nothing is published under this name.
            CorruptSegment: the pointer is damaged.
        """
        try:
            pointer = self._store.get(Bucket.COLLECTIONS, self._pointer, _MAX_DOCUMENT)
        except ObjectMissing:
            raise CollectionMissing(
                f"There is no collection {self._name!r}: check the spelling, or use the collection `starter`."
            ) from None
        try:
            return Pointer.model_validate_json(pointer)
        except ValidationError as error:
            raise CorruptSegment(
                f"{self._pointer} in the store, which names the current generation, is damaged ({problems_of(error)}): "
                f"{self._way_out}"
            ) from error

    def pointer_if_any(self) -> Pointer | None:
        """None where nothing is published, or what names it is damaged."""
        try:
            return self.pointer()
        except (CollectionMissing, CorruptSegment):
            return None

    def is_published(self) -> bool:
        """Whether there is a current generation, though what names it may be damaged."""
        try:
            return bool(self.pointer())
        except CollectionMissing:
            return False
        except CorruptSegment:
            return True

    def current(self) -> Manifest:
        """The manifest of the current generation as the store says; errors as of :meth:`pointer`, and CorruptSegment
        for a damaged manifest."""
        return self.read(self.pointer())

    def generations(self) -> list[Manifest]:
        """The kept manifests, oldest first; the last is not always the current one."""
        return [self.read(current) for current in self.listed()]

    @property
    def newest(self) -> int:
        """The highest number of a kept generation; 0 when there is none."""
        return max((current.generation for current in self.listed()), default=0)

    def generation(self, number: int) -> Manifest:
        """The manifest of a kept generation; raises NotFound, naming the kept ones, when it is not kept."""
        listed = self.listed()
        for current in listed:
            if current.generation == number:
                return self.read(current)
        kept = ", ".join(str(current.generation) for current in listed)
        raise NotFound(f"Collection {self._name!r} has no generation {number}: it keeps {kept}.")

    def retire(self, kept: int = KEPT_GENERATIONS) -> list[Manifest]:
        """Delete what only generations older than the newest `kept` need; returns the kept ones, oldest first.

        A damaged manifest is logged and left out: it must not keep later generations from being published.
        """
        listed = self.listed()
        old, left = listed[:-kept], []
        for current in listed[-kept:]:
            try:
                left.append(self.read(current))
            except CorruptSegment as error:
                logger.warning("%s", error)
        needed = set[str]().union(*(manifest.digests for manifest in left))
        for current in old:
            self._store.delete(Bucket.COLLECTIONS, self._generation(current))
        if old:
            for key in self._store.list_keys(Bucket.COLLECTIONS, self._object("")):
                if key.rpartition("/")[2] not in needed:
                    self._store.delete(Bucket.COLLECTIONS, key)
        return left

    def fetch(self, digest: str) -> Path:
        """A local copy of a file, checked against its digest unless that was done: FAISS itself checks nothing.

        Raises:
            CorruptSegment: the file is missing in the store, or damaged there.
            DiskUnavailable: the local disk is full.
        """
        download = partial(self._store.get_file, Bucket.COLLECTIONS, self._object(digest), digest)
        return self._copy(digest, None, download)

    def _fetch_part(self, digest: str, part: Part) -> Path:
        """The same for a part of a file."""
        return self._copy(part.name, part.is_in, partial(download_part, self._store, self._object(digest), part))

    def _copy(self, name: str, is_right: Callable[[BinaryIO], bool] | None, download: Callable[[Path], Path]) -> Path:
        path = self._cache / name
        try:
            with suppress(FileNotFoundError):  # not there yet, or deleted by another process just now
                if _CHECKED.agrees(path, name, is_right):
                    _note_use(path)
                    return path
                path.unlink(missing_ok=True)
            return download(path)
        except (ObjectMissing, DigestMismatch) as error:
            raise CorruptSegment(f"Collection {self._name!r}: {error.message}") from error
        except OSError as error:
            raise DiskUnavailable(f"{self._cache} cannot take a file: {error.strerror}. Free some space.") from error

    def size(self, manifest: Manifest) -> int:
        """Total size of a generation's files in the store, in bytes."""
        return sum(self._stored_bytes(digest) or 0 for digest in manifest.digests)

    def check(self, digest: str) -> None:
        """Read a whole file in the store; raises CorruptSegment when it is missing or damaged."""
        read = hashlib.sha256()
        try:
            for chunk in self._store.stream(Bucket.COLLECTIONS, self._object(digest), None):
                read.update(chunk)
        except ObjectMissing as error:
            raise CorruptSegment(f"Collection {self._name!r}: {error.message}") from error
        if read.hexdigest() != digest:
            raise CorruptSegment(f"Collection {self._name!r}: {self._object(digest)} is damaged in the store.")

    def check_blocks(self, files: SegmentFiles) -> None:
        """Compare a segment's local copy, which is whole, with what shards check their parts of it by; raises
        CorruptSegment."""
        if files.blocks and block_digests(self.fetch(files.index)) != (files.blocks.cells, files.blocks.digests):
            raise CorruptSegment(f"The manifest has other blocks of {files.index} than are in it.")

    def delete_all(self) -> None:
        """Delete all that is stored of the collection; the pointer first, so that no reader sees half a collection.
        What was read here of its documents goes too."""
        self._store.delete(Bucket.COLLECTIONS, self._pointer)
        for key in list(self._store.list_keys(Bucket.COLLECTIONS, f"{self._name}/")):
            self._store.delete(Bucket.COLLECTIONS, key)
        shutil.rmtree(self.reading, ignore_errors=True)

    def forget(self, digests: Iterable[str]) -> None:
        """Delete local copies; a process that has one mapped can still read it."""
        for digest in digests:
            (self._cache / digest).unlink(missing_ok=True)

    def listed(self) -> list[Pointer]:
        """What names the kept manifests, oldest first, whether or not they can be read."""
        keys = self._store.list_keys(Bucket.COLLECTIONS, f"{self._name}/generations/")
        names = sorted(key.rpartition("/")[2].removesuffix(".json") for key in keys)
        pairs = (name.partition("-") for name in names)
        return [Pointer(generation=int(number), sha256=sha256) for number, _, sha256 in pairs]

    def read(self, current: Pointer) -> Manifest:
        """The manifest of that name.

        Raises:
            CorruptSegment: it is missing or damaged.
            NotReady: a newer version wrote it, so jobs are left to workers of that.
        """
        key = self._generation(current)
        try:
            data = self._store.get_verified(Bucket.COLLECTIONS, key, current.sha256, _MAX_DOCUMENT)
            return Manifest.model_validate_json(data)
        except (ValidationError, ObjectMissing, DigestMismatch) as error:
            if isinstance(error, ValidationError) and of_newer_version(error):
                raise NotReady(f"The manifest {key} was written by a newer version: upgrade this one.") from error
            problem = problems_of(error) if isinstance(error, ValidationError) else error.message
            raise CorruptSegment(
                f"The manifest {key} is missing or damaged ({problem}). If it is current, {self._way_out}"
            ) from error

    def _stored_bytes(self, digest: str) -> int | None:
        try:
            return self._store.size(Bucket.COLLECTIONS, self._object(digest))
        except ObjectMissing:
            return None

    @property
    def _way_out(self) -> str:
        return f"`aii index rollback {self._name}` goes on from the newest generation that can be read."

    @property
    def _pointer(self) -> str:
        return f"{self._name}/current.json"

    def _put(self, key: str, document: bytes) -> None:
        self._store.put(Bucket.COLLECTIONS, key, document, "application/json")

    def _object(self, digest: str) -> str:
        return f"{self._name}/objects/{digest}"

    def _generation(self, current: Pointer) -> str:
        return f"{self._name}/generations/{current.generation:08d}-{current.sha256}.json"

    def _features(self, digest: str) -> str:
        return f"{self._name}/features/{digest}"


def _blocks(index: Path) -> ListBlocks | None:
    """Those of an index file that shards fetch in parts."""
    found = block_digests(index) if index.stat().st_size >= _LEAST_DIVIDED else None
    return ListBlocks(cells=found[0], digests=found[1]) if found else None


def _written(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode()


def _note_use(path: Path) -> None:
    """See :func:`prune`. The time of change stays, by which a file that was checked is known again."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def prune(cache: Path) -> None:
    """Delete local copies that were not opened for a week, what an interrupted repair has read and not gone on with in
    that time, and downloads that ended halfway.

    A process that has one mapped can still read it, and fetches it again when it opens it next.
    """
    now = time.time()
    for path in [*cache.glob("*"), *cache.glob(f"{_READING}/*/*")] if cache.exists() else ():
        kept_s = _HALF_DONE_S if path.name.startswith(PART_PREFIX) else _UNUSED_S
        try:
            if path.is_file() and now - max(path.stat().st_atime, path.stat().st_mtime) > kept_s:
                path.unlink()
        except FileNotFoundError:
            continue  # another process was faster
