"""What a bucket can have: each knows whether it is so, and makes it so."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from xml.sax.saxutils import escape

from minio import Minio
from minio.commonconfig import ENABLED, GOVERNANCE
from minio.error import S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.versioningconfig import VersioningConfig

from deploy.buckets.client import is_missing

__all__ = ["CrossOrigin", "Exists", "Locked", "Notifies", "Step", "Versioned"]

_CREATED: Final = "s3:ObjectCreated:*"
_CORS_AGE_S: Final = 3600


class Step(Protocol):
    """One thing about one bucket.

    Attributes:
        what: in words, for the table.
        asked_for: an option named it: a server that does not offer it is an error then.
    """

    @property
    def bucket(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def asked_for(self) -> bool: ...
    def holds(self, client: Minio) -> bool: ...
    def make(self, client: Minio) -> None: ...


@dataclass(frozen=True)
class Exists:
    """The bucket itself. What locks objects has to be said when it is made."""

    bucket: str
    lock: bool = False
    what: str = "exists"
    asked_for: bool = True

    def holds(self, client: Minio) -> bool:
        return client.bucket_exists(self.bucket)

    def make(self, client: Minio) -> None:
        try:
            client.make_bucket(self.bucket, object_lock=self.lock)
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):  # made by another meanwhile
                raise


@dataclass(frozen=True)
class Versioned:
    """What is replaced or deleted is kept as an earlier version."""

    bucket: str
    what: str = "keeps versions"
    asked_for: bool = True

    def holds(self, client: Minio) -> bool:
        return client.get_bucket_versioning(self.bucket).status == ENABLED

    def make(self, client: Minio) -> None:
        client.set_bucket_versioning(self.bucket, VersioningConfig(ENABLED))


@dataclass(frozen=True)
class Locked:
    """No version can be deleted for some days, except with a right of its own (governance mode)."""

    bucket: str
    days: int
    asked_for: bool = True

    @property
    def what(self) -> str:
        return f"locks versions for {self.days} days"

    def holds(self, client: Minio) -> bool:
        try:
            held = client.get_object_lock_config(self.bucket)
        except S3Error as error:
            if is_missing(error):
                return False
            raise
        return (held.mode, held.duration, held.duration_unit) == (GOVERNANCE, self.days, DAYS)

    def make(self, client: Minio) -> None:
        client.set_object_lock_config(self.bucket, ObjectLockConfig(GOVERNANCE, self.days, DAYS))


@dataclass(frozen=True)
class Notifies:
    """New objects are told to a target of the server's configuration, such as MinIO's of Redis."""

    bucket: str
    target: str
    asked_for: bool = True

    @property
    def what(self) -> str:
        return f"notifies {self.target}"

    def holds(self, client: Minio) -> bool:
        held = client.get_bucket_notification(self.bucket).queue_config_list or []
        return any(queue.queue == self.target and _CREATED in queue.events for queue in held)

    def make(self, client: Minio) -> None:
        held = client.get_bucket_notification(self.bucket)
        wanted = QueueConfig(queue=self.target, events=[_CREATED], config_id="aii-ingest")
        client.set_bucket_notification(
            self.bucket,
            NotificationConfig(
                held.cloud_func_config_list, [*(held.queue_config_list or []), wanted], held.topic_config_list
            ),
        )


@dataclass(frozen=True)
class CrossOrigin:
    """Pages of these origins may upload by presigned links, and read."""

    bucket: str
    origins: Sequence[str]
    asked_for: bool = True

    @property
    def what(self) -> str:
        return f"takes requests from {', '.join(self.origins)}"

    def holds(self, client: Minio) -> bool:
        try:
            answer = client._execute("GET", self.bucket, query_params={"cors": ""})  # the package has no method for it
        except S3Error as error:
            if is_missing(error):
                return False
            raise
        found = ET.fromstring(answer.data).iter()
        return set(self.origins) <= {e.text for e in found if e.tag.endswith("AllowedOrigin")}

    def make(self, client: Minio) -> None:
        origins = "".join(f"<AllowedOrigin>{escape(origin)}</AllowedOrigin>" for origin in self.origins)
        methods = "".join(f"<AllowedMethod>{method}</AllowedMethod>" for method in ("GET", "HEAD", "PUT"))
        rule = (
            f"{origins}{methods}<AllowedHeader>*</AllowedHeader><ExposeHeader>ETag</ExposeHeader>"
            f"<MaxAgeSeconds>{_CORS_AGE_S}</MaxAgeSeconds>"
        )
        body = f"<CORSConfiguration><CORSRule>{rule}</CORSRule></CORSConfiguration>".encode()
        digest = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        client._execute("PUT", self.bucket, body=body, headers={"Content-MD5": digest}, query_params={"cors": ""})
