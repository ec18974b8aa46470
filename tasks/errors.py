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
    │   ├── RedisUnavailable, StorageUnavailable (and of that, StorageRefused), DiskUnavailable, DeviceFull, NotReady
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

import inspect
from collections.abc import Iterator


class AiiError(Exception):
    """Base of the tree, and itself the code of a failure that is a bug.

    What to do: Read the worker's log: it has the traceback under the job's id.
    """

    code = "internal"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadInput(AiiError):
    """What the caller sent cannot be used.

    What to do: Correct it as the message says; the same request fails again.
    """

    code = "bad_input"


class EmptyImage(BadInput):
    """The file has no bytes.

    What to do: Upload it again: its transfer was cut off.
    """

    code = "empty"


class UnsupportedFormat(BadInput):
    """The bytes are no image of a format, or of a kind, that is read.

    What to do: Convert the image and submit it again.
    """

    code = "unsupported_format"


class TruncatedImage(BadInput):
    """The image is incomplete or damaged.

    What to do: Export or upload it again, completely.
    """

    code = "truncated"


class TooLarge(BadInput):
    """A file or an image is above a limit (AII_MAX_IMAGE_BYTES, AII_MAX_IMAGE_PIXELS).

    What to do: Send a smaller image, or raise the limit on both sides.
    """

    code = "too_large"


class TooSmall(BadInput):
    """A side of the image has too few pixels to be described by a feature.

    What to do: Send a larger version.
    """

    code = "too_small"


class AnimatedImage(BadInput):
    """The image has several frames.

    What to do: Send one frame as a still image.
    """

    code = "animated"


class InvalidAssetId(BadInput):
    """An asset id has characters or a length that are not allowed.

    What to do: Use 1 to 512 characters, without control characters and without blanks at the ends.
    """

    code = "invalid_asset_id"


class InvalidCollectionName(BadInput):
    """A collection's name has characters or a length that are not allowed.

    What to do: Use 1 to 63 lower-case letters, digits or '-', beginning with a letter or digit.
    """

    code = "invalid_collection_name"


class InvalidKey(BadInput):
    """An object's key is outside the allowed alphabet.

    What to do: Use ids and names as `invalid_asset_id` and `invalid_collection_name` allow them.
    """

    code = "invalid_key"


class InvalidRequest(BadInput):
    """A request, an option or an argument cannot be used.

    What to do: Correct what the message names.
    """

    code = "invalid_request"


class InvalidSetting(InvalidRequest):
    """An environment variable, or a line of the stack file, has a value that cannot be used.

    What to do: Correct the variable that the message names; a command ends with exit code 2.
    """

    code = "invalid_setting"


class DigestMismatch(BadInput):
    """Bytes read from the store are not those that were written.

    What to do: Submit the image again; if it recurs, check the store's disks.
    """

    code = "digest_mismatch"


class UrlRefused(BadInput):
    """An image's URL is not on the gateway's list, leads to a network that it must not reach, or gave no image in time.

    What to do: Send the image itself, or have its host added to AII_GATEWAY_URL_HOSTS.
    """

    code = "url_refused"


class NotFound(AiiError):
    """A named thing does not exist.

    What to do: Check the name in the message.
    """

    code = "not_found"


class ObjectMissing(NotFound):
    """An object that a job names is not in the store.

    What to do: Submit the image again; it was deleted, or the bucket was emptied. Shares the code of `NotFound`.
    """


class CollectionMissing(NotFound):
    """No collection has that name.

    What to do: Check the name, or build it with `aii index build`.
    """

    code = "collection_missing"


class ExtractorMissing(NotFound):
    """No extractor has that name, or its weights cannot be fetched.

    What to do: Correct AII_EXTRACTOR, or fetch the weights by hand and give their path.
    """

    code = "extractor_missing"


class JobMissing(NotFound):
    """The ledger does not know the job: it was never submitted here, or was forgotten after AII_KEEP_CLOSED_S.

    What to do: Look for it with `aii jobs list`, or submit it again.
    """

    code = "job_missing"


class AssetMissing(NotFound):
    """The collection has no asset of that id, or none with a protected file.

    What to do: Check the asset id and the collection; `aii index list` names the assets of one.
    """

    code = "asset_missing"


class Conflict(AiiError):
    """The thing named is in a state that does not allow the operation.

    What to do: Check its state (`aii jobs show`), then decide.
    """

    code = "conflict"


class AssetConflict(Conflict):
    """The asset id belongs to another image.

    What to do: Use another asset id, or replace the image (`replace=True`, `--replace`). Shares the code of `Conflict`.
    """


class AlreadyProtected(Conflict):
    """The image is itself the protected file of an asset.

    What to do: Activate its original; when the asset is purged (`aii index purge`), the file is not known any more.
    """

    code = "already_protected"


class CollectionExists(Conflict):
    """A collection of that name exists already.

    What to do: Choose another name, or delete it with `aii index delete`.
    """

    code = "collection_exists"


class CollectionBusy(Conflict):
    """Another process is writing the collection's next generation.

    What to do: Try again in a moment.
    """

    code = "collection_busy"
    retryable = True


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


class AccessDenied(AiiError):
    """The token does not have the scope or the collection that the request needs.

    What to do: Use another token, or make one with `aii tokens add`.
    """

    code = "access_denied"


class Unauthenticated(AccessDenied):
    """The request has no token, or one that is not known.

    What to do: Send a token as `Authorization: Bearer TOKEN`; `aii tokens add` makes one.
    """

    code = "unauthenticated"


class RateLimited(AccessDenied):
    """The token made more requests than its rate allows.

    What to do: Wait as long as the header Retry-After says.
    """

    code = "rate_limited"
    retryable = True
    retry_after_s = 1


class Poison(AiiError):
    """The image ended the decoder of a process of its own, or workers died while the job ran alone (AII_MAX_ATTEMPTS).

    What to do: Check the image and the worker's log, then `aii jobs retry`.
    """

    code = "poison"


class Cancelled(AiiError):
    """An operator cancelled the job.

    What to do: Submit it again, or `aii jobs retry` it.
    """

    code = "cancelled"


class LeaseLost(AiiError):
    """The worker's lease of the job expired: the job continues elsewhere.

    What to do: Nothing: it never ends a job.
    """

    code = "lease_lost"


class WorkerStopping(AiiError):
    """The worker is stopping and takes up no more work: the job continues elsewhere.

    What to do: Nothing: it never ends a job.
    """

    code = "worker_stopping"


class DeadlineExceeded(AiiError):
    """A time limit passed: of the job or one of its stages (AII_JOB_TIMEOUT_S, AII_STAGE_TIMEOUT_S), which has failed;
    or of the caller, while the job goes on.

    What to do: Check the image, or raise the limit, then `aii jobs retry`; a caller waits again.
    """

    code = "deadline_exceeded"


class Forked(AiiError):
    """A producer was used before a fork, and again in the child, where the S3 client cannot go on.

    What to do: Use it in the child only (gunicorn `post_fork`, Celery `worker_process_init`), or spawn the child.
    """

    code = "forked"


class DeviceFailure(AiiError):
    """The extractor gave no usable feature for the image.

    What to do: Check the device and its driver with another image; see the worker's log.
    """

    code = "device_failure"


def advice(kind: type[AiiError]) -> tuple[str, str]:
    """When an error of this class is raised, and what to do then: the two paragraphs of its docstring."""
    when, _, what_to_do = inspect.cleandoc(kind.__dict__["__doc__"]).partition("\n\nWhat to do: ")
    return " ".join(when.split()), " ".join(what_to_do.split())


def kinds() -> Iterator[type[AiiError]]:
    """Every class of the tree."""
    pending: list[type[AiiError]] = [AiiError]
    while pending:
        kind = pending.pop()
        yield kind
        pending.extend(kind.__subclasses__())


def retry_helps(code: str) -> bool:
    """Whether a job that ended with this code may end otherwise when it is done again as it is: not where its image or
    its request is what cannot be used."""
    return not isinstance(error_of(code, ""), BadInput | Conflict)


def error_of(code: str, message: str) -> AiiError:
    """The error that a result document names, as an exception of the class with that code."""
    kind = next((kind for kind in kinds() if kind.code == code), None)
    return kind(message) if kind else AiiError(f"{code}: {message}")
