"""What the caller can correct: its input, the names that it gives, and what it may do."""

from __future__ import annotations

from tasks.errors.base import AiiError

__all__ = [
    "AccessDenied",
    "AlreadyProtected",
    "AnimatedImage",
    "AssetConflict",
    "AssetMissing",
    "BadInput",
    "CollectionBusy",
    "CollectionExists",
    "CollectionMissing",
    "Conflict",
    "DigestMismatch",
    "EmptyImage",
    "ExtractorMissing",
    "InvalidAssetId",
    "InvalidCollectionName",
    "InvalidKey",
    "InvalidRequest",
    "InvalidSetting",
    "JobMissing",
    "NotFound",
    "ObjectMissing",
    "RateLimited",
    "TooLarge",
    "TooSmall",
    "TruncatedImage",
    "Unauthenticated",
    "UnsupportedFormat",
    "UrlRefused",
]


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
    """A file or an image is above a limit (AII_MAX_IMAGE_BYTES, AII_MAX_IMAGE_PIXELS, sides of 65,535 pixels).

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
    """An image's URL is not on the gateway's list, leads to a network that it must not reach, or to no image.

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
