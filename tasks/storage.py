"""Object storage through plain S3: originals, queries, protected images, results, collections, extractors.

The client is obstore: it signs, sends and awaits requests outside Python's lock. One in Python holds that lock for
about 0.6 ms a request; four requests an image would bound a worker, GPU and all, to 400 images a second.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import obstore
from obstore.exceptions import BaseError, GenericError, PermissionDeniedError
from obstore.store import S3Store

from tasks.errors import (
    DigestMismatch,
    Forked,
    InvalidRequest,
    TooLarge,
)
from tasks.files import replacing
from tasks.names import check_key, sha256_hex
from tasks.network import opener_for
from tasks.s3_client import s3_client, s3_url
from tasks.s3_errors import MISSING, S3Errors, code_in
from tasks.settings import Settings

if TYPE_CHECKING:
    from datetime import datetime

    from obstore import GetResult, ObjectMeta

_CHUNK: Final = 1 << 20
_PAGE: Final = 1_000  # S3 lists no more at once
_CREATION_TIMEOUT_S: Final = 10
# How the client calls an answer to a range that is not HTTP's 206, whatever the answer holds.
_NOT_PARTIAL: Final = "non-partial response"
READINGS: Final = 2  # of an object with a digest: what was changed on its way arrives whole the next time
_FIRST_REGION: Final = "us-east-1"
_PROBED_KEY: Final = "nothing-is-ever-stored-here"


class Bucket(Enum):
    """What each bucket holds; its actual name is a setting."""

    ORIGINALS = "originals"
    QUERIES = "queries"
    PROTECTED = "protected"
    RESULTS = "results"
    COLLECTIONS = "collections"
    EXTRACTORS = "extractors"


class _Runtime:
    """Where obstore's threads are: a process has one set of them, from its first request on, and a child that is forked
    after that has none. Its requests would wait for ever."""

    def __init__(self) -> None:
        self._pid: int | None = None

    def enter(self) -> None:
        """Raise Forked in such a child."""
        if self._pid is None:
            self._pid = os.getpid()
        elif self._pid != os.getpid():
            raise Forked(
                "This process was forked from one that had used S3 already, which its S3 client does not survive: use "
                "the producer in the child only (gunicorn: in `post_fork`, Celery: at `worker_process_init`), or start "
                "the child with the method `spawn` or `forkserver`."
            )


_RUNTIME: Final = _Runtime()


class ObjectStore:
    """Put and get objects by allowlisted keys; every failure is an AiiError. Thread-safe; build one in each process."""

    def __init__(
        self, stores: dict[Bucket, S3Store], names: dict[Bucket, str], url: str, region: str,
        sources: dict[str, S3Store],
    ) -> None:  # fmt: skip
        self._stores = stores
        self._sources = sources
        self._names = names
        self._url = url
        self._s3_errors = S3Errors(url)
        self._region = region

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build a client with short time-outs (obstore's: ten attempts in three minutes). Does not connect yet."""
        names = {bucket: getattr(settings, f"bucket_{bucket.value}") for bucket in Bucket}
        stores = {bucket: s3_client(settings, name) for bucket, name in names.items()}
        sources = {name: s3_client(settings, name) for name in settings.source_buckets}
        return cls(stores, names, s3_url(settings), settings.s3_region, sources)

    def ensure_buckets(self, sources: Iterable[str] = ()) -> None:
        """Create the buckets that are missing, and those of AII_SOURCE_BUCKETS that are named."""
        ours = {self._names[bucket]: store for bucket, store in self._stores.items()}
        for name, store in (ours | {name: self._sources[name] for name in sources}).items():
            with self._errors(f"bucket {name}"):
                if not _exists(store):
                    _create(store, self._region)

    def address(self, bucket: Bucket) -> str:
        """Service and name of a bucket."""
        return f"{self._url}/{self._names[bucket]}"

    def check(self) -> None:
        """Raise StorageUnavailable unless the store answers, lets us in and has a bucket for results."""
        with self._errors("a result"):
            if not _exists(self._stores[Bucket.RESULTS]):
                raise self._s3_errors.lacking("every result")

    def put(self, bucket: Bucket, key: str, data: bytes, content_type: str) -> None:
        """Write one object; an object that is there already is replaced."""
        with self._errors(key):
            attributes = {"Content-Type": content_type}
            self._stores[bucket].put(check_key(key), data, attributes=attributes, use_multipart=False)

    def put_file(self, bucket: Bucket, key: str, path: Path) -> None:
        """Write one object from a file, in parts when it is large."""
        with path.open("rb") as file, self._errors(key):
            self._stores[bucket].put(check_key(key), file)

    def delete(self, bucket: Bucket, key: str) -> None:
        """Delete one object; one that is not there is no error."""
        with self._errors(key):
            self._stores[bucket].delete(check_key(key))

    def exists(self, bucket: Bucket, key: str) -> bool:
        """Whether there is such an object. False as well for a user who may write here and not read: it writes the
        same bytes again then."""
        with self._errors(key):
            try:
                self._stores[bucket].head(check_key(key))
            except (BaseError, FileNotFoundError) as error:
                if code_in(str(error)) not in (*MISSING, "AccessDenied"):
                    raise
                return False
        return True

    def size(self, bucket: Bucket, key: str) -> int:
        """Bytes of one object; raises ObjectMissing."""
        with self._errors(key):
            return self._stores[bucket].head(check_key(key))["size"]

    def get(self, bucket: Bucket, key: str, max_bytes: int) -> bytes:
        """Read one object.

        Raises:
            ObjectMissing: there is no such object.
            TooLarge: it is larger than `max_bytes`; its bytes were not read.
        """
        with self._errors(key):
            return bytes(_opened(self._stores[bucket], check_key(key), max_bytes).bytes())

    def get_dated(self, bucket: Bucket, key: str, max_bytes: int) -> tuple[bytes, int]:
        """The same, with the time at which the object was stored, in ms by the store's clock."""
        with self._errors(key):
            found = _opened(self._stores[bucket], check_key(key), max_bytes)
            return bytes(found.bytes()), _ms(found.meta["last_modified"])

    def get_source(self, bucket: str, key: str, max_bytes: int, etag: str = "") -> bytes:
        """Read an image from a bucket of its owner.

        Args:
            bucket: the actual name of a bucket that AII_SOURCE_BUCKETS names.
            key: any key; no allowlist of ours applies, as nothing is written.
            etag: that the object must have; "" for any.

        Raises:
            InvalidRequest: the bucket is not one of those.
            DigestMismatch: the object has another ETag.
            ObjectMissing, TooLarge: as in :meth:`get`.
        """
        store, url = self._sources.get(bucket), f"s3://{bucket}/{key}"
        if store is None:
            raise InvalidRequest(f"Nothing is read from the bucket {bucket!r}: AII_SOURCE_BUCKETS does not name it.")
        with self._errors(url):
            found = _opened(store, key, max_bytes)
            if etag and etag.strip('"') != (found.meta["e_tag"] or "").strip('"'):
                raise DigestMismatch(f"{url} was replaced since it was submitted: submit it again.")
            return bytes(found.bytes())

    def get_verified(self, bucket: Bucket, key: str, sha256: str, max_bytes: int) -> bytes:
        """Read one object and check its digest; raises DigestMismatch as well."""
        for _ in range(READINGS):
            data = self.get(bucket, key, max_bytes)
            if sha256_hex(data) == sha256:
                return data
        raise DigestMismatch(f"The bytes at {key} are not those that were submitted: submit the image again.")

    def get_file(self, bucket: Bucket, key: str, sha256: str, path: Path) -> Path:
        """Download to `path`, which appears only when it is whole and its digest is right; raises DigestMismatch."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=0o600) as part:
            if not any(self._download(bucket, key, part) == sha256 for _ in range(READINGS)):
                raise DigestMismatch(f"{key} is damaged: its digest is not {sha256}.")
        return path

    def _download(self, bucket: Bucket, key: str, path: Path) -> str:
        """Write an object to a file; returns its digest."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self.stream(bucket, key, None):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def name_of(self, bucket: Bucket) -> str:
        """The bucket's actual name."""
        return self._names[bucket]

    def folders(self, bucket: Bucket) -> list[str]:
        """The first parts of all keys that have several."""
        with self._errors(bucket.value):
            return sorted(self._stores[bucket].list_with_delimiter()["common_prefixes"])

    def list_keys(self, bucket: Bucket, folder: str = "") -> Iterator[str]:
        """Keys below a folder, in the store's order."""
        with self._errors(folder or bucket.value):
            for batch in self._stores[bucket].list(folder or None):
                yield from (item["path"] for item in batch)

    def pages(self, bucket: Bucket, after: str) -> Iterator[Sequence[ObjectMeta]]:
        """What is listed of all objects whose keys come after that one, up to a thousand at a time."""
        with self._errors(bucket.value):
            yield from self._stores[bucket].list(offset=after or None, chunk_size=_PAGE)

    def now_ms(self, bucket: Bucket, key: str) -> int:
        """The store's clock, by an object that is written for that."""
        self.put(bucket, key, b"", "application/octet-stream")
        with self._errors(key):
            return _ms(self._stores[bucket].head(check_key(key))["last_modified"])

    def stream(self, bucket: Bucket, key: str, max_bytes: int | None) -> Iterator[bytes]:
        """The bytes of one object, a megabyte at a time; errors as in :meth:`get`."""
        with self._errors(key):
            for chunk in _opened(self._stores[bucket], check_key(key), max_bytes).stream(_CHUNK):
                yield bytes(chunk)

    def stream_range(self, bucket: Bucket, key: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes of one object from `start` on and before `end`, some at a time; it must have all of them. Of a
        server whose answer to that the client does not take (rclone's), it is read from its beginning."""
        store = self._stores[bucket]
        with self._errors(key):
            try:
                found, left_out = store.get(check_key(key), options={"range": (start, end)}), 0
            except GenericError as error:
                if _NOT_PARTIAL not in str(error):
                    raise
                found, left_out = store.get(key), start
            yield from _some(found, left_out, end - start)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        _RUNTIME.enter()
        with self._s3_errors.named(what):
            yield


def _opened(store: S3Store, key: str, max_bytes: int | None) -> GetResult:
    found = store.get(key)
    if max_bytes is not None and found.meta["size"] > max_bytes:
        raise TooLarge(f"{key} is larger than the limit of {max_bytes:,} bytes.")
    return found


def _some(found: GetResult, left_out: int, count: int) -> Iterator[bytes]:
    """The next `count` bytes after those that are left out; no more are read."""
    for chunk in found.stream(_CHUNK):
        data = bytes(chunk)[left_out : left_out + count]
        left_out, count = max(0, left_out - len(chunk)), count - len(data)
        yield data
        if not count:
            return


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _exists(bucket: S3Store) -> bool:
    try:
        bucket.get(_PROBED_KEY)
    except FileNotFoundError as error:
        return code_in(str(error)) != "NoSuchBucket"
    except PermissionDeniedError as error:
        if code_in(str(error)) != "AccessDenied":
            raise  # unknown keys
    return True  # who may not list a bucket is told AccessDenied of what is missing as well


def _create(bucket: S3Store, region: str) -> None:
    """The one request that obstore cannot send, though it can sign it. S3's first region must not be named (see
    CreateBucket in the API reference)."""
    url = obstore.sign(bucket, "PUT", "", timedelta(seconds=_CREATION_TIMEOUT_S))
    place = f"<LocationConstraint>{region}</LocationConstraint>" if region != _FIRST_REGION else ""
    body = f"<CreateBucketConfiguration>{place}</CreateBucketConfiguration>".encode() if place else None
    try:
        opener_for(url).open(urllib.request.Request(url, body, method="PUT"), timeout=_CREATION_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:  # another process has created it meanwhile
            raise
