"""Every failure this system names, as one tree.

    AiiError
    ├── BadInput              what the caller sent; never retried, closes the job with its code
    │   ├── EmptyImage, UnsupportedFormat, TruncatedImage, TooLarge, TooSmall, AnimatedImage
    │   ├── InvalidAssetId, InvalidCollectionName, InvalidKey, InvalidRequest (and of that, InvalidSetting)
    │   └── DigestMismatch, UrlRefused
    ├── NotFound              a named thing does not exist
    │   ├── ObjectMissing, CollectionMissing, ExtractorMissing, JobMissing, AssetMissing
    ├── Conflict              a named thing exists already, or is in use
    │   ├── AssetConflict, AlreadyProtected, CollectionExists, CollectionBusy
    ├── Mismatch              two things that must agree do not
    │   ├── ExtractorMismatch, CorruptExtractor, CorruptSegment
    ├── Unavailable           a service, or space on a disk, is missing; retried
    │   ├── RedisUnavailable, StorageUnavailable (and of that, StorageRefused), DiskUnavailable, DeviceFull, NotReady,
    │   ├── ShardUnavailable, SourceUnavailable
    ├── AccessDenied          the caller may not do this
    │   ├── Unauthenticated, RateLimited
    ├── Poison                workers died of the job
    ├── Cancelled             an operator ended the job
    ├── LeaseLost             another worker holds the job now
    ├── WorkerStopping        the worker is stopping, and another one gets the job
    ├── DeadlineExceeded      a time limit passed, of the job or of its caller
    ├── Forked                the process was forked after its parent had used S3
    └── DeviceFailure         the extractor failed on this image

``code`` is what a person or a program branches on: it is stable, and result documents contain it. ``retryable`` says
whether the same job may succeed later without any change. Each class says when it is raised and what to do; the table
in README.md is made of that.
Constructors take one message, because that is all Celery's JSON results keep of an exception.
"""

from __future__ import annotations

from tasks.errors.base import AiiError
from tasks.errors.codes import advice, error_of, kinds, retry_helps
from tasks.errors.jobs import Cancelled, DeadlineExceeded, Forked, LeaseLost, Poison, WorkerStopping
from tasks.errors.requests import (
    AccessDenied,
    AlreadyProtected,
    AnimatedImage,
    AssetConflict,
    AssetMissing,
    BadInput,
    CollectionBusy,
    CollectionExists,
    CollectionMissing,
    Conflict,
    DigestMismatch,
    EmptyImage,
    ExtractorMissing,
    InvalidAssetId,
    InvalidCollectionName,
    InvalidKey,
    InvalidRequest,
    InvalidSetting,
    JobMissing,
    NotFound,
    ObjectMissing,
    RateLimited,
    TooLarge,
    TooSmall,
    TruncatedImage,
    Unauthenticated,
    UnsupportedFormat,
    UrlRefused,
)
from tasks.errors.services import (
    CorruptExtractor,
    CorruptSegment,
    DeviceFailure,
    DeviceFull,
    DiskUnavailable,
    ExtractorMismatch,
    Mismatch,
    NotReady,
    RedisUnavailable,
    ShardUnavailable,
    SourceUnavailable,
    StorageRefused,
    StorageUnavailable,
    Unavailable,
)

__all__ = [
    "AccessDenied",
    "AiiError",
    "AlreadyProtected",
    "AnimatedImage",
    "AssetConflict",
    "AssetMissing",
    "BadInput",
    "Cancelled",
    "CollectionBusy",
    "CollectionExists",
    "CollectionMissing",
    "Conflict",
    "CorruptExtractor",
    "CorruptSegment",
    "DeadlineExceeded",
    "DeviceFailure",
    "DeviceFull",
    "DigestMismatch",
    "DiskUnavailable",
    "EmptyImage",
    "ExtractorMismatch",
    "ExtractorMissing",
    "Forked",
    "InvalidAssetId",
    "InvalidCollectionName",
    "InvalidKey",
    "InvalidRequest",
    "InvalidSetting",
    "JobMissing",
    "LeaseLost",
    "Mismatch",
    "NotFound",
    "NotReady",
    "ObjectMissing",
    "Poison",
    "RateLimited",
    "RedisUnavailable",
    "ShardUnavailable",
    "SourceUnavailable",
    "StorageRefused",
    "StorageUnavailable",
    "TooLarge",
    "TooSmall",
    "TruncatedImage",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedFormat",
    "UrlRefused",
    "WorkerStopping",
    "advice",
    "error_of",
    "kinds",
    "retry_helps",
]
