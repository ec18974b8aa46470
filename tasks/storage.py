"""Object storage through plain S3: originals, queries, protected images, results, collections, extractors.

The client is obstore: it signs, sends and awaits requests outside Python's lock. One in Python holds that lock for
about 0.6 ms a request; four requests an image would bound a worker, GPU and all, to 400 images a second.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from tasks.errors import (
    DigestMismatch,
    Forked,
    InvalidRequest,
    ObjectMissing,
    StorageRefused,
    StorageUnavailable,
    TooLarge,
)
from tasks.files import replacing
from tasks.names import check_key, sha256_hex
from tasks.network import clock_offset_s, opener_for, proxy_of
from tasks.s3_client import s3_client, s3_url
from tasks.settings import Settings

if TYPE_CHECKING:
    from obstore import GetResult

_CHUNK: Final = 1 << 20
_MISSING: Final = ("NoSuchKey", "NoSuchObject", "ResourceNotFound")
_REFUSED: Final = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
_SKEWED: Final = ("RequestTimeTooSkewed", "RequestExpired")
_CLOCK_TOLERANCE_S: Final = 300  # S3 accepts a quarter of an hour
# Answers of a server that is there and cannot serve now (S3's API reference, error responses); it is asked again.
_AWAY: Final = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "HTTP 429")
_CREATION_TIMEOUT_S: Final = 10
_CODE_OF_STATUS: Final = {"401": "AccessDenied", "403": "AccessDenied", "404": "NoSuchKey"}
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
        self._address = urlsplit(url).netloc
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

    def check(self) -> None:
        """Raise StorageUnavailable unless the store answers, lets us in and has a bucket for results."""
        with self._errors("a result"):
            if not _exists(self._stores[Bucket.RESULTS]):
                raise self._lacking("every result")

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
                if _code_in(str(error)) not in (*_MISSING, "AccessDenied"):
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
        data = self.get(bucket, key, max_bytes)
        if sha256_hex(data) != sha256:
            raise DigestMismatch(f"The bytes at {key} are not those that were submitted: submit the image again.")
        return data

    def get_file(self, bucket: Bucket, key: str, sha256: str, path: Path) -> Path:
        """Download to `path`, which appears only when it is whole and its digest is right; raises DigestMismatch."""
        digest = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=0o600) as part:
            with part.open("wb") as file:
                for chunk in self.stream(bucket, key, None):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise DigestMismatch(f"{key} is damaged: its digest is not {sha256}.")
        return path

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

    def stream(self, bucket: Bucket, key: str, max_bytes: int | None) -> Iterator[bytes]:
        """The bytes of one object, a megabyte at a time; errors as in :meth:`get`."""
        with self._errors(key):
            for chunk in _opened(self._stores[bucket], check_key(key), max_bytes).stream(_CHUNK):
                yield bytes(chunk)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Name the situation. The client's errors are of few classes; what the server said is in their text."""
        _RUNTIME.enter()
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._named(_code_in(str(error)), what, error) from error
        except urllib.error.HTTPError as error:
            raise self._named(_code_in(error.read().decode(errors="replace")), what, error) from error
        except OSError as error:
            raise self._named("", what, error) from error

    def _named(self, code: str, what: str, error: Exception) -> Exception:
        if code in _MISSING:
            return ObjectMissing(f"There is no object {what} in the store.")
        if code == "NoSuchBucket":
            return self._lacking(what)
        if code in _REFUSED or code in _SKEWED:
            # A key that may not do this is refused this object; a key or a clock that is wrong, everything.
            kind = StorageRefused if code == "AccessDenied" else StorageUnavailable
            return kind(f"S3 at {self._address} refuses {_refusal(code, self._url)}")
        if code and code not in _AWAY and not code.startswith("HTTP 5"):
            return StorageRefused(f"S3 at {self._address} answered {code} for {what}.")
        return self._away(code, what, error)

    def _away(self, code: str, what: str, error: Exception) -> StorageUnavailable:
        proxy = proxy_of(self._url)
        through = f" through the proxy {proxy}, which the environment names" if proxy else ""
        if code:
            return StorageUnavailable(f"S3 at {self._address} answered {code} for {what}{through}.")
        if isinstance(error, UnauthenticatedError):
            return StorageUnavailable(
                f"There are no keys for S3 at {self._address}: check AII_S3_CREDENTIALS and what belongs to it."
            )
        return StorageUnavailable(
            f"S3 at {self._address} does not answer{through} ({_kind_of(error)}): start it with `aii up`, "
            f"or set {'NO_PROXY or ' if proxy else ''}AII_S3_ENDPOINT."
        )

    def _lacking(self, what: str) -> StorageUnavailable:
        """Unlike a refusal of one object, this meets every job: they wait until the bucket is there."""
        remedy = "make it with `aii buckets init`, or start `aii up`"
        return StorageUnavailable(f"S3 at {self._address} lacks a bucket that {what} needs: {remedy}.")


def _opened(store: S3Store, key: str, max_bytes: int | None) -> GetResult:
    found = store.get(key)
    if max_bytes is not None and found.meta["size"] > max_bytes:
        raise TooLarge(f"{key} is larger than the limit of {max_bytes:,} bytes.")
    return found


def _refusal(code: str, url: str) -> str:
    """What S3 refuses, and what to do. A clock that is off makes it refuse keys that are right."""
    offset_s = clock_offset_s(url) or 0.0
    if abs(offset_s) > _CLOCK_TOLERANCE_S:
        off = f"{abs(offset_s) / 60:,.0f} minutes {'ahead of' if offset_s > 0 else 'behind'}"
        return f"requests: this machine's clock is {off} the server's ({code}). Set it, by NTP for example."
    if code in _SKEWED:
        return f"requests as too old or too new ({code}): set the clocks of both machines, by NTP for example."
    return f"the keys ({code}): check AII_S3_ACCESS_KEY and AII_S3_SECRET_KEY."


def _exists(bucket: S3Store) -> bool:
    try:
        bucket.get(_PROBED_KEY)
    except FileNotFoundError as error:
        return _code_in(str(error)) != "NoSuchBucket"
    except PermissionDeniedError as error:
        if _code_in(str(error)) != "AccessDenied":
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


def _code_in(text: str) -> str:
    """The S3 error code in a server's answer, or, for one without a body (to HEAD), the one that its status means; ""
    when no server answered."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+)", text)
    if code or not status:
        return code[1] if code else ""
    return _CODE_OF_STATUS.get(status[1], f"HTTP {status[1]}")


def _kind_of(error: Exception) -> str:
    """In which phase a request failed, if the client's message names one. An unknown certificate comes last there."""
    kind = re.search(r"(InvalidCertificate)", str(error)) or re.search(r"kind: (\w+)", str(error))
    return kind[1] if kind else type(error).__name__
