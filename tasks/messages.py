"""What travels through the queue: small frozen models, JSON, object digests instead of pixels.

A request's ``job_id`` is a hash of what it asks for, so the same request is the same job, however often and by however
many producers it is sent. Queries carry a nonce, because the same query may have another result a minute later.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from tasks.errors import AiiError, InvalidAssetId, InvalidCollectionName, InvalidRequest
from tasks.names import (
    DIGEST_PATTERN,
    META_KEY_PATTERN,
    QUEUE_ACTIVATE,
    QUEUE_INDEX,
    QUEUE_QUERY,
    TASK_ACTIVATE,
    TASK_COMPACT,
    TASK_EXTRACT,
    TASK_QUERY,
    canonical_json,
    check_asset_id,
    check_collection,
    clean_name,
    sha256_hex,
)

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]
# Metadata of an asset, by which queries can be filtered: few and short, since the index holds them.
Metadata = Annotated[
    dict[Annotated[str, Field(pattern=META_KEY_PATTERN)], Annotated[str, Field(max_length=256)]],
    Field(max_length=16),
]
# The names of `tasks.names.VIEWS`.
View = Literal["mirror", "rotations"]
_M = TypeVar("_M", bound=BaseModel)


class Frozen(BaseModel):
    """Base of all messages and documents: immutable, and unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(Frozen):
    """An uploaded image: the bucket follows from the task, the key is the digest of the bytes."""

    sha256: Digest
    size: int = Field(gt=0)


class ActivationOptions(Frozen):
    """How an image is activated. The defaults are the paper's (section 4.1): 10 steps of Adam at learning rate 1."""

    steps: int = Field(default=10, ge=1, le=200)
    learning_rate: float | None = Field(default=None, gt=0, le=100, description="default: 10 / steps")
    alpha: float = Field(default=3.0, gt=0, le=20, description="scale of the mask; with `linf`, grey levels")
    attenuation: Literal["jnd", "linf"] = Field(
        default="jnd",
        description="bound the change of each pixel by what the eye notices there, or of all pixels alike",
    )
    min_psnr_db: float | None = Field(
        default=None, ge=20, le=80, description="weaken the change until the published file keeps this floor"
    )
    robust: bool = Field(default=False, description="optimise over edited views, at about fourteen times the time")
    metadata: Literal["all", "rights", "none"] = Field(
        default="all", description="what of EXIF, IPTC and XMP is published: all, who owns the image, or nothing"
    )
    quality: int | None = Field(
        default=None, ge=1, le=100, description="of the published JPEG or WebP; default: the source's own"
    )
    lossless: bool = Field(default=False, description="publish a JPEG as PNG, and a WebP without loss")
    strip_metadata: bool = Field(default=False, description="the same as `metadata` none, the name in version 0.1.0")

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields that came after version 0.1.0 where they have their defaults: the request then has the same
        job id as in that version."""
        said: dict[str, Any] = handler(self)
        return {name: value for name, value in said.items() if name not in _LATER or value != _LATER[name]}

    @property
    def kept_metadata(self) -> Literal["all", "rights", "none"]:
        return "none" if self.strip_metadata else self.metadata

    @property
    def effective_learning_rate(self) -> float:
        """The given learning rate, else 10 / steps. Adam moves a coordinate by about its learning rate a step, so this
        keeps the distance; it agrees with both of the paper's modes, 10 steps at 1 and 1 step at 10."""
        return self.learning_rate if self.learning_rate is not None else 10.0 / self.steps


# What ActivationOptions gained after version 0.1.0, with its defaults.
_LATER: dict[str, Any] = {"metadata": "all", "quality": None, "lossless": False}


class QueryOptions(Frozen):
    """How the index is searched."""

    top_k: int = Field(default=5, ge=1, le=100)
    nprobe: int = Field(default=1, ge=1, le=65_536)
    where: Metadata = Field(default_factory=dict, description="only assets that carry these metadata")
    fpr: float | None = Field(
        default=None, gt=0, lt=1, description="share of unrelated images that may match; default: the collection's"
    )
    threshold: float | None = Field(
        default=None, ge=0, description="distance up to which the first match counts, in place of a calibrated one"
    )
    views: tuple[View, ...] = Field(default=(), max_length=2, description="ask for these versions of the image too")


def _says_nothing(value: object) -> bool:
    return not value


class Request(Frozen):
    """What all requests share; each kind names its `task` and the `queue` it waits in."""

    queue: ClassVar[str]
    # Fields that do not make another job of a request.
    beside_identity: ClassVar[frozenset[str]] = frozenset()
    task: str
    collection: str

    @field_validator("collection")
    @classmethod
    def _collection(cls, value: str) -> str:
        return check_collection(value)

    @property
    def job_id(self) -> str:
        """32 hex digits: the first half of the sha256 over the canonical JSON of what the request asks for."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude=set(self.beside_identity))))[:32]

    @classmethod
    def task_name(cls) -> str:
        """Celery's name of the task that this is the message of."""
        return str(cls.model_fields["task"].default)


class ActivateRequest(Request):
    """Protect one image and register it."""

    queue: ClassVar[str] = QUEUE_ACTIVATE
    beside_identity: ClassVar[frozenset[str]] = frozenset({"name", "replace"})
    task: Literal["aii.activate"] = TASK_ACTIVATE
    source: Source
    asset_id: str
    options: ActivationOptions = ActivationOptions()
    meta: Metadata = Field(default_factory=dict)
    nonce: str = Field(default="", max_length=64, description="makes a job of its own of a request made before")
    # Left out of the message where they say nothing, as workers of version 0.1.0 do not know them.
    name: str = Field(default="", exclude_if=_says_nothing, description="the file's own name, shown with every match")
    replace: bool = Field(
        default=False, exclude_if=_says_nothing, description="let this image take the place of another of that asset id"
    )

    @field_validator("asset_id")
    @classmethod
    def _asset_id(cls, value: str) -> str:
        return check_asset_id(value)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return clean_name(value)


class QueryRequest(Request):
    """Find the asset that one image is a copy of."""

    queue: ClassVar[str] = QUEUE_QUERY
    task: Literal["aii.query"] = TASK_QUERY
    source: Source
    nonce: str = Field(min_length=1, max_length=64)
    options: QueryOptions = QueryOptions()


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
        fields = {str(part) for problem in error.errors() for part in problem["loc"]}
        text = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:5])
        if fields == {"asset_id"}:
            raise InvalidAssetId(text) from None
        if fields == {"collection"}:
            raise InvalidCollectionName(text) from None
        raise InvalidRequest(f"The request cannot be used: {text}") from None
