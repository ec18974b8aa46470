"""What travels through the queue: small frozen models, JSON, object digests instead of pixels.

A request's ``job_id`` is a hash of what it says (:mod:`tasks.identity`), so the same request is the same job, however
often and by however many producers it is sent. The Python producer's queries carry a nonce, because the same query may
have another result a minute later.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator

from tasks import identity
from tasks.errors import AiiError, InvalidAssetId, InvalidCollectionName, InvalidKey, InvalidRequest
from tasks.names import (
    BUCKET_PATTERN,
    DIGEST_PATTERN,
    JOB_ID_PATTERN,
    QUEUE_ACTIVATE,
    QUEUE_INDEX,
    QUEUE_QUERY,
    TASK_ACTIVATE,
    TASK_CARD,
    TASK_COMPACT,
    TASK_EXPLAIN,
    TASK_EXTRACT,
    TASK_FEEDBACK,
    TASK_LOOKUP,
    TASK_QUERY,
    canonical_json,
    check_asset_id,
    check_collection,
    clean_name,
    is_printed,
    sha256_hex,
)
from tasks.options import (
    USUAL_NPROBE,
    ActivationOptions,
    Frozen,
    Metadata,
    Options,
    QueryOptions,
    View,
    problems_of,
)

__all__ = [
    "MOST_VALUES",
    "MOST_VECTORS",
    "USUAL_NPROBE",
    "ActivateRequest",
    "ActivationOptions",
    "AssetId",
    "CardRequest",
    "CompactRequest",
    "Digest",
    "ExplainRequest",
    "ExtractRequest",
    "FeedbackRequest",
    "Frozen",
    "JobId",
    "LookupRequest",
    "Metadata",
    "Opinion",
    "Options",
    "QueryOptions",
    "QueryRequest",
    "Request",
    "S3Object",
    "Source",
    "View",
    "validated",
]

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]
AssetId = Annotated[str, AfterValidator(check_asset_id)]
# In pydantic's regular expressions, `$` is the end of the text, and there is no `\Z`.
JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN)]
Opinion = Literal["confirm", "reject"]
_M = TypeVar("_M", bound=BaseModel)
MOST_VALUES: Final = 65_536  # of a vector
MOST_VECTORS: Final = 1_000  # in one look-up; its document has a few kilobytes for each


class Source(Frozen):
    """An uploaded image: the bucket follows from the task, the key is the digest of the bytes."""

    sha256: Digest
    size: int = Field(default=0, ge=0, description="in bytes; version 0.1.0 needs it")


class S3Object(Frozen):
    """An image where it lies in the same S3 service, in a bucket that `AII_SOURCE_BUCKETS` of the workers names."""

    bucket: str = Field(pattern=BUCKET_PATTERN)
    key: str = Field(min_length=1, max_length=1024)
    etag: str = Field(
        default="", max_length=128, description="that the object must have; makes another job of changed content"
    )

    @field_validator("key")
    @classmethod
    def _key(cls, value: str) -> str:
        parts = value.split("/")
        if not is_printed(value) or any(part in ("", ".", "..") for part in parts):
            raise InvalidKey(
                f"Object key {value[:140]!r} cannot be read: it has an empty part, or a control character."
            )
        return value

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class Request(Frozen):
    """What all requests share; each kind names its `task` and the `queue` it waits in."""

    queue: ClassVar[str]
    # Fields that do not make another job of a request.
    beside_identity: ClassVar[identity.Fields] = {}
    schema_version: Literal[2] = identity.SCHEMA_VERSION
    task: str
    collection: str
    idempotency_key: str = Field(
        default="", max_length=255, description="names the job instead of what the request says: one key, one job"
    )

    @field_validator("collection")
    @classmethod
    def _collection(cls, value: str) -> str:
        return check_collection(value)

    @property
    def job_id(self) -> str:
        """32 hex digits, see :mod:`tasks.identity`."""
        return identity.job_id(self.task, self.said(), self.idempotency_key)

    @property
    def version_1_id(self) -> str | None:
        """The id that version 0.1.0 gave the same request; None for one that it could not express, or never twice."""
        return None

    def said(self) -> dict[str, Any]:
        """What the request says, as far as that makes it this job: fields that have their defaults are left out."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude=self.beside_identity)

    @property
    def digest(self) -> str:
        """Of what the request says, 64 hex digits: two requests under one idempotency key are told apart by it."""
        return sha256_hex(canonical_json(self.said()))

    def message(self) -> dict[str, Any]:
        """The request as it is sent, JSON: fields that have their defaults are left out, the version is not."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        return {"schema_version": self.schema_version, "task": self.task, **fields}

    @classmethod
    def task_name(cls) -> str:
        """Celery's name of the task that this is the message of."""
        return str(cls.model_fields["task"].default)


class ActivateRequest(Request):
    """Protect one image and register it."""

    queue: ClassVar[str] = QUEUE_ACTIVATE
    beside_identity: ClassVar[identity.Fields] = {"name": True, "replace": True, "source": {"size": True}}
    task: Literal["aii.activate"] = TASK_ACTIVATE
    source: Source | S3Object
    asset_id: str | None = Field(default=None, description="default: the sha256 of the image's bytes")
    options: ActivationOptions = ActivationOptions()
    meta: Metadata = Field(default={})
    nonce: str = Field(default="", max_length=64, description="makes a job of its own of a request made before")
    name: str = Field(default="", description="the file's own name, shown with every match")
    replace: bool = Field(default=False, description="let this image take the place of another of that asset id")

    @field_validator("asset_id")
    @classmethod
    def _asset_id(cls, value: str | None) -> str | None:
        return None if value is None else check_asset_id(value)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return clean_name(value)

    def asset_of(self, sha256: str) -> str:
        """The asset id of an image whose bytes have that digest."""
        return self.asset_id or sha256

    def said(self) -> dict[str, Any]:
        said = super().said()
        if isinstance(self.source, Source) and self.asset_id == self.source.sha256:
            del said["asset_id"]  # the default
        return said

    @property
    def version_1_id(self) -> str | None:
        if self.idempotency_key or not isinstance(self.source, Source) or not self.source.size:
            return None
        asset_id = self.asset_of(self.source.sha256)
        return identity.version_1_id(self.model_dump(mode="json") | {"asset_id": asset_id})


class QueryRequest(Request):
    """Find the asset that one image is a copy of."""

    queue: ClassVar[str] = QUEUE_QUERY
    beside_identity: ClassVar[identity.Fields] = {"source": {"size": True}}
    task: Literal["aii.query"] = TASK_QUERY
    source: Source | S3Object
    nonce: str = Field(default="", max_length=64, description="makes a job of its own of a query made before")
    options: QueryOptions = QueryOptions()


def _without_views(options: QueryOptions, reason: str) -> QueryOptions:
    if options.views:
        raise ValueError(reason)
    return options


class LookupRequest(Request):
    """Find the assets that are nearest to feature vectors, which the sender extracted itself."""

    queue: ClassVar[str] = QUEUE_QUERY
    beside_identity: ClassVar[identity.Fields] = {"source": {"size": True}}
    task: Literal["aii.lookup"] = TASK_LOOKUP
    source: Source = Field(description="the vectors, row by row, as little-endian float32")
    vectors: int = Field(ge=1, le=MOST_VECTORS)
    dimension: int = Field(ge=1, le=MOST_VALUES)
    extractor: Digest | None = Field(default=None, description="made by this one; None: by the collection's")
    nonce: str = Field(min_length=1, max_length=64)
    options: QueryOptions = QueryOptions()

    @field_validator("options")
    @classmethod
    def _options(cls, value: QueryOptions) -> QueryOptions:
        return _without_views(value, "views are of images, and a vector has none")


class ExplainRequest(Request):
    """Explain why one image is, or is not, found to be a copy of an asset."""

    queue: ClassVar[str] = QUEUE_QUERY
    beside_identity: ClassVar[identity.Fields] = {"source": {"size": True}}
    task: Literal["aii.explain"] = TASK_EXPLAIN
    source: Source | S3Object
    asset_id: AssetId
    nonce: str = Field(default="", max_length=64, description="makes a job of its own of a request made before")
    options: QueryOptions = QueryOptions()


class FeedbackRequest(Request):
    """Record what a person thinks of a match: the image of a query, by its digest, is a copy of the asset, or is not.
    `query_job` is the job that answered it."""

    queue: ClassVar[str] = QUEUE_QUERY
    task: Literal["aii.feedback"] = TASK_FEEDBACK
    source_sha256: Digest
    asset_id: AssetId
    opinion: Opinion
    query_job: JobId
    nonce: str = Field(default="", max_length=64, description="makes a job of its own of a request made before")


class CardRequest(Request):
    """Measure how well edited copies of an asset are found, before and after its activation."""

    queue: ClassVar[str] = QUEUE_ACTIVATE
    beside_identity: ClassVar[identity.Fields] = {"source": {"size": True}}
    task: Literal["aii.card"] = TASK_CARD
    source: Source | S3Object = Field(description="the image that the asset was activated from")
    asset_id: AssetId
    copies: int = Field(default=4, ge=1, le=16, description="by each edit")
    nonce: str = Field(default="", max_length=64, description="makes a job of its own of a request made before")
    options: QueryOptions = Field(default=QueryOptions(), description="how the copies are searched for")

    @field_validator("options")
    @classmethod
    def _options(cls, value: QueryOptions) -> QueryOptions:
        return _without_views(value, "each copy is searched for as it is: leave out views")


class CompactRequest(Request):
    """Write a collection's segments and journal into its next generation."""

    queue: ClassVar[str] = QUEUE_INDEX
    task: Literal["aii.compact"] = TASK_COMPACT
    nonce: str = Field(min_length=1, max_length=64)


class ExtractRequest(Request):
    """Extract the features of some originals, for the collection that is built of them."""

    queue: ClassVar[str] = QUEUE_INDEX
    task: Literal["aii.extract"] = TASK_EXTRACT
    extractor: Digest
    images: list[Digest] = Field(min_length=1, max_length=1_000)


def validated(model: type[_M], payload: Any) -> _M:
    """Build a message, or a part of one, from what came through the queue or from a caller.

    Raises:
        InvalidAssetId, InvalidCollectionName: that field cannot be used.
        InvalidRequest: anything else; the message lists the fields and what is wrong with each.
    """
    try:
        return model.model_validate(payload)
    except AiiError:
        raise
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        fields = {str(part) for problem in problems for part in problem["loc"]}
        text = problems_of(error)
        if fields == {"asset_id"}:
            raise InvalidAssetId(text) from None
        if fields == {"collection"}:
            raise InvalidCollectionName(text) from None
        raise InvalidRequest(f"The request cannot be used: {text}") from None
