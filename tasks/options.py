"""What a caller chooses for an activation or a query, as Python values and as parts of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import InvalidRequest
from tasks.names import META_KEY_PATTERN

__all__ = ["USUAL_NPROBE", "ActivationOptions", "Frozen", "Metadata", "Options", "QueryOptions", "View", "problems_of"]

# Metadata of an asset, by which queries can be filtered: few and short, since the index holds them.
Metadata = Annotated[
    dict[Annotated[str, Field(pattern=META_KEY_PATTERN)], Annotated[str, Field(max_length=256)]],
    Field(max_length=16),
]
# The names of `tasks.names.VIEWS`.
View = Literal["mirror", "rotations"]
# What a collection's queries search unless it, or the query, says otherwise: 0.02 ms of 18, and far more is found.
USUAL_NPROBE: Final = 16


class Frozen(BaseModel):
    """Base of all messages and documents: immutable, and unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Options(Frozen):
    """Base of what a caller says in Python: a value that cannot be used raises InvalidRequest, as in a message."""

    if not TYPE_CHECKING:

        def __init__(self, **said: Any) -> None:
            try:
                super().__init__(**said)
            except ValidationError as error:
                raise InvalidRequest(f"These options cannot be used: {problems_of(error)}") from None


class ActivationOptions(Options):
    """How an image is activated. The defaults are the paper's (section 4.1), 10 steps of Adam at learning rate 1, of
    which a worker takes as many as pay."""

    steps: int = Field(default=10, ge=1, le=200, description="at most: an image that gains little more is done")
    learning_rate: float | None = Field(default=None, gt=0, le=100, description="default: 10 / steps")
    alpha: float = Field(default=3.0, gt=0, le=20, description="scale of the mask; with `linf`, grey levels")
    attenuation: Literal["jnd", "linf"] = Field(
        default="jnd",
        description="bound the change of each pixel by what the eye notices there, or of all pixels alike",
    )
    min_psnr_db: float | None = Field(
        default=None, ge=20, le=80, description="weaken the change until the published file keeps this floor"
    )
    robust: bool = Field(default=False, description="optimise over edited views, at three to four times the time")
    metadata: Literal["all", "rights", "none"] = Field(
        default="all", description="what of EXIF, IPTC and XMP is published: all, who owns the image, or nothing"
    )
    quality: int | None = Field(
        default=None, ge=1, le=100, description="of the published JPEG or WebP; default: the source's own"
    )
    lossless: bool = Field(default=False, description="publish a JPEG as PNG, and a WebP without loss")
    strip_metadata: bool = Field(default=False, description="the same as `metadata` none, the name in version 0.1.0")

    @property
    def kept_metadata(self) -> Literal["all", "rights", "none"]:
        return "none" if self.strip_metadata else self.metadata

    @property
    def effective_learning_rate(self) -> float:
        """The given learning rate, else 10 / steps. Adam moves a coordinate by about its learning rate a step, so this
        keeps the distance; it agrees with both of the paper's modes, 10 steps at 1 and 1 step at 10."""
        return self.learning_rate if self.learning_rate is not None else 10.0 / self.steps


class QueryOptions(Options):
    """How the index is searched. A result says with which `nprobe` it was."""

    top_k: int = Field(default=5, ge=1, le=100)
    nprobe: int | None = Field(
        default=None, ge=1, le=65_536, description="cells of the index that are searched; default: the collection's"
    )
    where: Metadata = Field(default={}, description="only assets that carry these metadata")
    fpr: float | None = Field(
        default=None, gt=0, lt=1, description="share of unrelated images that may match; default: the collection's"
    )
    threshold: float | None = Field(
        default=None, ge=0, description="distance up to which the first match counts, in place of a calibrated one"
    )
    views: tuple[View, ...] = Field(default=(), max_length=2, description="ask for these versions of the image too")


def problems_of(error: ValidationError) -> str:
    """The fields that cannot be used, and what is wrong with each."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)[:5]
    return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
