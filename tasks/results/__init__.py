"""Result documents: the JSON at ``results/{job_id}.json`` that commits a job.

A document carries all that is needed to audit an image and to rebuild its index entry.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from tasks.messages import Frozen
from tasks.results.activation import ActivationResult, KeptManifest, Quality, Verification
from tasks.results.card import CardEdit, CardResult, CardShare
from tasks.results.common import ExtractorIdentity, Provenance
from tasks.results.explanation import Alignment, ExplainedAsset, ExplanationResult, Placement
from tasks.results.search import Assessment, FeedbackResult, LookupAnswer, LookupResult, Match, QueryResult, Verdict
from tasks.results.upkeep import CompactionResult, ExtractionResult

__all__ = [
    "ActivationResult",
    "Alignment",
    "Assessment",
    "CardEdit",
    "CardResult",
    "CardShare",
    "CompactionResult",
    "ExplainedAsset",
    "ExplanationResult",
    "ExtractionResult",
    "ExtractorIdentity",
    "FailureResult",
    "FeedbackResult",
    "GoodResult",
    "ImageResult",
    "KeptManifest",
    "LookupAnswer",
    "LookupResult",
    "Match",
    "Placement",
    "Provenance",
    "Quality",
    "QueryResult",
    "Result",
    "Verdict",
    "Verification",
    "parse_result",
]


class FailureResult(Frozen):
    """The end of a job that cannot succeed: `code` from the error tree, `message` for a person."""

    status: Literal["failed"] = "failed"
    task: str
    job_id: str
    code: str
    message: str
    provenance: Provenance


# What producers ask for, as it ends well; and as it ends.
GoodResult = ActivationResult | QueryResult | LookupResult | ExplanationResult | FeedbackResult | CardResult
ImageResult = GoodResult | FailureResult
Result = (
    ActivationResult
    | QueryResult
    | LookupResult
    | ExplanationResult
    | FeedbackResult
    | CardResult
    | CompactionResult
    | ExtractionResult
    | FailureResult
)
_adapter: TypeAdapter[Result] = TypeAdapter(Annotated[Result, Field(discriminator="status")])


def parse_result(data: bytes) -> Result:
    """Read a result document; raises pydantic's ValidationError when it is not one."""
    return _adapter.validate_json(data)
