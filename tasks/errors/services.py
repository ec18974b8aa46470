"""What the installation lacks: services, space, a device that works, and parts of one version."""

from __future__ import annotations

from tasks.errors.base import AiiError

__all__ = [
    "CorruptExtractor",
    "CorruptSegment",
    "DeviceFailure",
    "DeviceFull",
    "DiskUnavailable",
    "ExtractorMismatch",
    "Mismatch",
    "NotReady",
    "RedisUnavailable",
    "ShardUnavailable",
    "SourceUnavailable",
    "StorageRefused",
    "StorageUnavailable",
    "Unavailable",
]


class Mismatch(AiiError):
    """Two things that must agree do not.

    What to do: Bring both to the same version, as the message says.
    """

    code = "mismatch"


class ExtractorMismatch(Mismatch):
    """The collection was built with another extractor than the worker has, or weights are not the pinned ones.

    What to do: Start workers with the collection's extractor (AII_EXTRACTOR), or build a collection for theirs.
    """

    code = "extractor_mismatch"


class CorruptExtractor(Mismatch):
    """Weights cannot be read, or do not fit the architecture.

    What to do: Download them again, or name the right architecture.
    """

    code = "corrupt_extractor"


class CorruptSegment(Mismatch):
    """A file of a collection is damaged or incomplete.

    What to do: Check with `aii index verify`, go back with `aii index rollback`, then rebuild.
    """

    code = "corrupt_segment"


class Unavailable(AiiError):
    """A service cannot be used now.

    What to do: Wait: jobs are retried, and go on when it is back. A command ends with exit code 3.
    """

    code = "unavailable"
    retryable = True
    # How many attempts a job has that meets this error; None for any number.
    most_attempts: int | None = None


class RedisUnavailable(Unavailable):
    """Redis does not answer, refuses the login, or takes no writes.

    What to do: Start it (`aii up`), correct AII_REDIS_URL, or free its memory or disk, as the message says.
    """

    code = "redis_unavailable"


class StorageUnavailable(Unavailable):
    """S3 does not answer, does not know the keys, or lacks a bucket.

    What to do: Start it (`aii up`), or correct AII_S3_ENDPOINT and the keys, as the message says; jobs wait for it.
    """

    code = "storage_unavailable"


class StorageRefused(StorageUnavailable):
    """S3 answers, and refuses an object. A job fails after five attempts in about twenty seconds.

    What to do: Correct the policy, as the message says, then `aii jobs retry`.
    """

    code = "storage_refused"
    most_attempts = 5


class SourceUnavailable(Unavailable):
    """The host of an image's URL is down, answers with an error of its own, or gave no whole image in time.

    What to do: Send the request again later, or the image itself.
    """

    code = "source_unavailable"


class DiskUnavailable(Unavailable):
    """A local disk is full or cannot be written.

    What to do: Free space in AII_STATE_DIR, or point it elsewhere.
    """

    code = "disk_unavailable"


class DeviceFull(Unavailable):
    """The device has no memory for a single image. A job fails after five attempts in about twenty seconds.

    What to do: Free the device's memory, or use a device with more, then `aii jobs retry`.
    """

    code = "device_full"
    most_attempts = 5


class NotReady(Unavailable):
    """A worker is still starting, or has no collection that it can serve.

    What to do: Wait for /ready; the message says what is missing.
    """

    code = "not_ready"


class ShardUnavailable(Unavailable):
    """A shard of the index does not answer, and the job needs the whole index.

    What to do: Start a worker for the shard that `aii status` names; the job is retried.
    """

    code = "shard_unavailable"


class DeviceFailure(AiiError):
    """The extractor gave no usable feature for the image.

    What to do: Check the device and its driver with another image; see the worker's log.
    """

    code = "device_failure"
