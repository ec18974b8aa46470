"""What travels through the queue: small frozen models, JSON, object digests instead of pixels.

A request's ``job_id`` is a hash of everything it says, so the same request is the same job, whoever sends it and
however often. Queries carry a nonce, because the same question may have a new answer a minute later.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tasks.errors import AiiError, InvalidAssetId, InvalidCollectionName, InvalidRequest
from tasks.names import (
    DIGEST_PATTERN,
    QUEUE_OF_TASK,
    TASK_ACTIVATE,
    TASK_QUERY,
    canonical_json,
    check_asset_id,
    check_collection,
    sha256_hex,
)

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]
_R = TypeVar("_R", bound="Request")


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
        default="jnd", description="change each pixel by what the eye misses there, or all pixels by the same"
    )
    min_psnr_db: float | None = Field(
        default=None, ge=20, le=80, description="weaken the change until the published file keeps this floor"
    )
    robust: bool = Field(default=False, description="optimise over edited views: about three times the work")
    strip_metadata: bool = Field(default=False, description="publish without EXIF and colour profile, in sRGB")

    @property
    def effective_learning_rate(self) -> float:
        """Adam moves a coordinate by about its learning rate a step: 10/steps keeps the distance, and both of the
        paper's modes (10 steps at 1, 1 step at 10) lie on that line."""
        return self.learning_rate if self.learning_rate is not None else 10.0 / self.steps


class QueryOptions(Frozen):
    """How the index is searched."""

    top_k: int = Field(default=5, ge=1, le=100)
    nprobe: int = Field(default=1, ge=1, le=65_536)


class Request(Frozen):
    """What all requests share."""

    task: str
    collection: str
    source: Source

    @field_validator("collection")
    @classmethod
    def _collection(cls, value: str) -> str:
        return check_collection(value)

    @property
    def job_id(self) -> str:
        """32 hex digits: the first half of the sha256 over the canonical JSON of the request."""
        return sha256_hex(canonical_json(self.model_dump(mode="json")))[:32]

    @property
    def queue(self) -> str:
        return QUEUE_OF_TASK[self.task]


class ActivateRequest(Request):
    """Protect one image and register it."""

    task: Literal["aii.activate"] = TASK_ACTIVATE
    asset_id: str
    options: ActivationOptions = ActivationOptions()

    @field_validator("asset_id")
    @classmethod
    def _asset_id(cls, value: str) -> str:
        return check_asset_id(value)


class QueryRequest(Request):
    """Find the asset that one image is a copy of."""

    task: Literal["aii.query"] = TASK_QUERY
    nonce: str = Field(min_length=1, max_length=64)
    options: QueryOptions = QueryOptions()


def parse_request(model: type[_R], payload: Any) -> _R:
    """Validate a message that came through the queue.

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
