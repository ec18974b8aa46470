"""The client that administers the store, with named errors; what a server does not offer is told from what fails."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from tasks.errors import InvalidSetting, StorageRefused, StorageUnavailable
from tasks.s3_credentials import minio_provider, signs_requests
from tasks.settings import Settings

__all__ = ["NotOffered", "administrator", "answers", "is_missing", "named_errors"]

_NOT_OFFERED: Final = (
    "NotImplemented",
    "XNotImplemented",
    "MethodNotAllowed",
    "UnsupportedOperation",
    "InvalidBucketState",
    # What a server says that takes a PUT of a configuration for the creation of the bucket.
    "BucketAlreadyExists",
    "BucketAlreadyOwnedByYou",
)
_MISSING: Final = (
    "NoSuchBucket",
    "NoSuchLifecycleConfiguration",
    "NoSuchCORSConfiguration",
    "ObjectLockConfigurationNotFoundError",
)


class NotOffered(Exception):
    """The server does not have this, or not for a bucket that exists already."""


def administrator(settings: Settings) -> Minio:
    """A client with short time-outs (its own: five attempts of five minutes). Does not connect yet."""
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=3, read=30),
        retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        ssl_context=ssl.create_default_context(),  # with the authorities that SSL_CERT_FILE names
    )
    return Minio(
        settings.s3_endpoint,
        credentials=minio_provider(settings) if signs_requests(settings) else None,
        secure=settings.s3_secure,
        region=settings.s3_region,
        http_client=pool,
    )


def answers(client: Minio, settings: Settings) -> None:
    """Raise StorageUnavailable unless the server answers."""
    with named_errors(settings.s3_endpoint):
        client.bucket_exists(settings.bucket_results)


@contextmanager
def named_errors(endpoint: str) -> Iterator[None]:
    """Name the situation.

    Raises:
        NotOffered: the server answers that it does not have this, or by something that is no answer of S3's.
        StorageRefused, StorageUnavailable: as everywhere.
        InvalidSetting: a name can be no bucket's.
    """
    try:
        yield
    except S3Error as error:
        if error.code in _NOT_OFFERED:
            raise NotOffered(error.code) from error
        raise StorageRefused(f"S3 at {endpoint} answered {error.code} for bucket {error.bucket_name}.") from error
    except (InvalidResponseError, ServerError) as error:
        raise NotOffered(type(error).__name__) from error
    except ValueError as error:
        raise InvalidSetting(f"AII_BUCKET_…: {error}: a name has 3 to 63 of a-z, 0-9, '.' and '-'.") from error
    except (urllib3.exceptions.HTTPError, MinioException, OSError) as error:
        raise StorageUnavailable(
            f"S3 at {endpoint} does not answer ({type(error).__name__}): correct AII_S3_ENDPOINT, or start it."
        ) from error


def is_missing(error: S3Error) -> bool:
    """Whether a server says that there is no such bucket, or no such configuration of one."""
    return error.code in _MISSING
