"""The report card of an asset: how well edited copies of it are found, and how visible its protection is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.messages import Digest, Frozen, QueryOptions
from tasks.results.activation import Quality
from tasks.results.common import ExtractorIdentity, Provenance


class CardEdit(Frozen):
    """How many copies by one edit are found; `before` are copies of the original, were it registered as it is, `after`
    those of the protected file.

    `found`: the asset comes first, and no reference is nearer (R@1). `matched`: it comes first with the verdict
    `match`, whether a reference is nearer or not.
    """

    edit: str
    copies: int
    found_before: int
    found_after: int
    matched_before: int
    matched_after: int


class CardShare(Frozen):
    """A share of all copies, with Wilson's 95 % interval."""

    share: float
    low: float
    high: float


class CardResult(Frozen):
    """The end of a good measurement. Copies are made of the picture at 1,024 pixels at most, as it travels on the web;
    the first copy by each edit is the edit alone, the others were cropped a little and scaled down before.

    Attributes:
        found_before, found_after, matched_before, matched_after: the sums of all edits.
        quality: of the whole protected file.
        difference: a JPEG in base64 of at most 448 pixels: protected less original, `amplified` times, around grey.
        uninformative: as in :class:`ActivationResult`.
    """

    status: Literal["measured"] = "measured"
    task: Literal["aii.card"] = "aii.card"
    job_id: str
    collection: str
    generation: int
    asset_id: str
    source_sha256: Digest
    protected_key: str
    protected_sha256: Digest
    extractor: ExtractorIdentity
    quality: Quality
    found_before: CardShare
    found_after: CardShare
    matched_before: CardShare
    matched_after: CardShare
    edits: list[CardEdit]
    difference: str = Field(repr=False)
    amplified: int
    uninformative: bool
    options: QueryOptions
    provenance: Provenance
