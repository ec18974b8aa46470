"""Every failure this system names, as one tree.

    AiiError
    ├── BadInput              the caller's bytes or words; never retried, closes the job with its code
    │   ├── EmptyImage, UnsupportedFormat, TruncatedImage, TooLarge, TooSmall, AnimatedImage
    │   ├── InvalidAssetId, InvalidCollectionName, InvalidKey, InvalidRequest (and of that, InvalidSetting)
    │   └── DigestMismatch
    ├── NotFound              a named thing does not exist
    │   ├── ObjectMissing, CollectionMissing, ExtractorMissing, JobMissing
    ├── Conflict              a named thing exists already, or is in use
    │   ├── CollectionExists, CollectionBusy
    ├── Mismatch              two things that must agree do not
    │   ├── ExtractorMismatch, CorruptExtractor, CorruptSegment
    ├── Unavailable           a service, or room on a disk, is missing; retried
    │   ├── RedisUnavailable, StorageUnavailable, DiskUnavailable, NotReady
    ├── Poison                the job was started too often and never finished
    ├── Cancelled             an operator ended the job
    ├── LeaseLost             another worker holds the job now
    ├── DeadlineExceeded      the caller's patience ended before the job did
    └── DeviceFailure         the extractor failed on this image

``code`` is what a person or a program branches on: it is stable, and it stands in result documents. ``retryable`` says
whether the same job may succeed later without anybody changing anything.
Constructors take one message, because that is all Celery's JSON results keep of an exception.
"""

from __future__ import annotations

from collections.abc import Iterator


class AiiError(Exception):
    """Base of the tree: ``code`` and ``retryable`` are class attributes, the message says what to do next."""

    code = "internal"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadInput(AiiError):
    code = "bad_input"


class EmptyImage(BadInput):
    code = "empty"


class UnsupportedFormat(BadInput):
    code = "unsupported_format"


class TruncatedImage(BadInput):
    code = "truncated"


class TooLarge(BadInput):
    code = "too_large"


class TooSmall(BadInput):
    code = "too_small"


class AnimatedImage(BadInput):
    code = "animated"


class InvalidAssetId(BadInput):
    code = "invalid_asset_id"


class InvalidCollectionName(BadInput):
    code = "invalid_collection_name"


class InvalidKey(BadInput):
    code = "invalid_key"


class InvalidRequest(BadInput):
    code = "invalid_request"


class InvalidSetting(InvalidRequest):
    code = "invalid_setting"


class DigestMismatch(BadInput):
    code = "digest_mismatch"


class NotFound(AiiError):
    code = "not_found"


class ObjectMissing(NotFound):
    """An object that a job names is not in the store; its code is the general one, the message carries the key."""


class CollectionMissing(NotFound):
    code = "collection_missing"


class ExtractorMissing(NotFound):
    code = "extractor_missing"


class JobMissing(NotFound):
    code = "job_missing"


class Conflict(AiiError):
    code = "conflict"


class CollectionExists(Conflict):
    code = "collection_exists"


class CollectionBusy(Conflict):
    code = "collection_busy"
    retryable = True


class Mismatch(AiiError):
    code = "mismatch"


class ExtractorMismatch(Mismatch):
    code = "extractor_mismatch"


class CorruptExtractor(Mismatch):
    code = "corrupt_extractor"


class CorruptSegment(Mismatch):
    code = "corrupt_segment"


class Unavailable(AiiError):
    code = "unavailable"
    retryable = True


class RedisUnavailable(Unavailable):
    code = "redis_unavailable"


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"


class DiskUnavailable(Unavailable):
    code = "disk_unavailable"


class NotReady(Unavailable):
    code = "not_ready"


class Poison(AiiError):
    code = "poison"


class Cancelled(AiiError):
    code = "cancelled"


class LeaseLost(AiiError):
    code = "lease_lost"


class DeadlineExceeded(AiiError):
    code = "deadline_exceeded"


class DeviceFailure(AiiError):
    code = "device_failure"


def kinds() -> Iterator[type[AiiError]]:
    """Every class of the tree."""
    pending: list[type[AiiError]] = [AiiError]
    while pending:
        kind = pending.pop()
        yield kind
        pending.extend(kind.__subclasses__())


def error_of(code: str, message: str) -> AiiError:
    """The error that a result document names, as an exception of the class with that code."""
    kind = next((kind for kind in kinds() if kind.code == code), None)
    return kind(message) if kind else AiiError(f"{code}: {message}")
