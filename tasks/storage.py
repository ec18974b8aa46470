"""Object storage through plain S3: originals, queries, protected images, results, collections, extractors.

The `minio` SDK is thread-safe but not process-safe: build one :class:`ObjectStore` in each process.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from tasks.errors import DigestMismatch, ObjectMissing, StorageUnavailable, TooLarge
from tasks.names import check_key, sha256_hex
from tasks.settings import Settings

_CHUNK = 1 << 20
_MISSING = ("NoSuchKey", "NoSuchObject", "ResourceNotFound")
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")


class Bucket(Enum):
    """What each bucket holds; its actual name is a setting."""

    ORIGINALS = "originals"
    QUERIES = "queries"
    PROTECTED = "protected"
    RESULTS = "results"
    COLLECTIONS = "collections"
    EXTRACTORS = "extractors"


class ObjectStore:
    """Put and get objects by allowlisted keys; every failure is one of ours."""

    def __init__(self, client: Minio, http: urllib3.PoolManager, names: dict[Bucket, str], address: str) -> None:
        self._client = client
        self._http = http
        self._names = names
        self._address = address

    @classmethod
    def connect(cls, settings: Settings, pool_size: int = 32) -> ObjectStore:
        """Build a client with short time-outs (the SDK's own are five minutes, five times). Does not connect yet."""
        http = urllib3.PoolManager(
            maxsize=pool_size,
            timeout=urllib3.Timeout(connect=3.0, read=30.0),
            retries=urllib3.Retry(total=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )
        client = Minio(
            settings.s3_endpoint,
            access_key=settings.s3_access_key.get_secret_value() or None,
            secret_key=settings.s3_secret_key.get_secret_value() or None,
            secure=settings.s3_secure,
            region=settings.s3_region,
            http_client=http,
        )
        names = {bucket: getattr(settings, f"bucket_{bucket.value}") for bucket in Bucket}
        return cls(client, http, names, settings.s3_endpoint)

    def disconnect(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._http.clear()

    def ensure_buckets(self) -> None:
        """Create the buckets that are missing."""
        for name in self._names.values():
            with self._errors(f"bucket {name}"):
                if not self._client.bucket_exists(name):
                    self._client.make_bucket(name)

    def check(self) -> None:
        """Raise StorageUnavailable unless the store answers and lets us in."""
        with self._errors("the list of buckets"):
            self._client.list_buckets()

    def put(self, bucket: Bucket, key: str, data: bytes, content_type: str) -> None:
        """Write one object; an object that is there already is replaced."""
        with self._errors(key):
            self._client.put_object(
                self._names[bucket], check_key(key), io.BytesIO(data), len(data), content_type=content_type
            )

    def put_file(self, bucket: Bucket, key: str, path: Path) -> None:
        """Write one object from a file, in parts when it is large."""
        with self._errors(key):
            self._client.fput_object(self._names[bucket], check_key(key), str(path))

    def delete(self, bucket: Bucket, key: str) -> None:
        """Delete one object; one that is not there is no error."""
        with self._errors(key):
            self._client.remove_object(self._names[bucket], check_key(key))

    def exists(self, bucket: Bucket, key: str) -> bool:
        try:
            with self._errors(key):
                self._client.stat_object(self._names[bucket], check_key(key))
        except ObjectMissing:
            return False
        return True

    def size(self, bucket: Bucket, key: str) -> int:
        """Bytes of one object; raises ObjectMissing."""
        with self._errors(key):
            return int(self._client.stat_object(self._names[bucket], check_key(key)).size or 0)

    def get(self, bucket: Bucket, key: str, max_bytes: int) -> bytes:
        """Read one object.

        Raises:
            ObjectMissing: there is no such object.
            TooLarge: it is larger than `max_bytes`; at most that many bytes were read.
        """
        return b"".join(self.stream(bucket, key, max_bytes))

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
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as part:
            try:
                for chunk in self.stream(bucket, key, None):
                    digest.update(chunk)
                    part.write(chunk)
                if digest.hexdigest() != sha256:
                    raise DigestMismatch(f"{key} is damaged: its digest is not {sha256}.")
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(path)
            except BaseException:
                Path(part.name).unlink()
                raise
        return path

    def name_of(self, bucket: Bucket) -> str:
        """The bucket's actual name."""
        return self._names[bucket]

    def list_keys(self, bucket: Bucket, prefix: str = "") -> Iterator[str]:
        """Keys below a prefix, in the store's order."""
        with self._errors(prefix or bucket.value):
            for item in self._client.list_objects(self._names[bucket], prefix=prefix or None, recursive=True):
                yield str(item.object_name)

    def stream(self, bucket: Bucket, key: str, max_bytes: int | None) -> Iterator[bytes]:
        """The bytes of one object, a megabyte at a time; errors as in :meth:`get`."""
        with self._errors(key):
            response = self._client.get_object(self._names[bucket], check_key(key))
            try:
                total = 0
                for chunk in response.stream(_CHUNK):
                    total += len(chunk)
                    if max_bytes is not None and total > max_bytes:
                        raise TooLarge(f"{key} is larger than the limit of {max_bytes:,} bytes.")
                    yield chunk
            finally:
                response.close()
                response.release_conn()

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Name the situation: rclone's refusals come as InvalidResponseError (XML with the wrong content type), MinIO's
        as S3Error; what never reached a server comes from urllib3."""
        try:
            yield
        except S3Error as error:
            raise self._named(str(error.code), what, error) from error
        except InvalidResponseError as error:
            raise self._named(_code_in(str(error)), what, error) from error
        except (MinioException, ServerError, urllib3.exceptions.HTTPError, OSError) as error:
            raise StorageUnavailable(
                f"S3 at {self._address} does not answer ({type(error).__name__}): start it with `aii up`, "
                "or set AII_S3_ENDPOINT."
            ) from error

    def _named(self, code: str, what: str, error: Exception) -> Exception:
        if code in _MISSING:
            return ObjectMissing(f"There is no object {what} in the store.")
        if code == "NoSuchBucket":
            return StorageUnavailable(f"S3 at {self._address} lacks a bucket that {what} needs: start `aii up`.")
        if code in _REFUSED:
            return StorageUnavailable(
                f"S3 at {self._address} refuses the keys ({code}): check AII_S3_ACCESS_KEY and AII_S3_SECRET_KEY."
            )
        return StorageUnavailable(f"S3 at {self._address} answered {code} for {what}: {type(error).__name__}.")


def _code_in(text: str) -> str:
    """The S3 error code in the text of an InvalidResponseError."""
    known = next((name for name in (*_MISSING, *_REFUSED, "NoSuchBucket") if name in text), None)
    return known or ("AccessDenied" if "Response code: 403" in text else "unknown")
