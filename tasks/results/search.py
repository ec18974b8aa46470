"""What a query, a look-up of vectors and a person's opinion of a match end with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.messages import Digest, Frozen, JobId, Metadata, Opinion, QueryOptions
from tasks.results.common import ExtractorIdentity, Provenance


class Match(Frozen):
    """One candidate.

    Attributes:
        distance: the squared L2 distance between the query's feature and the asset's code, or its stored feature where
            the assessment's `reranked` says so; Hamming's for LSH.
        score: the distance relative to those of the images around the query: 0 for a perfect copy, about 1 for an image
            that is no nearer than any other. None where there was nothing to compare it with.
        probability: that the query is a copy of it, if copies and unrelated images are asked for equally often; None
            where no copies were measured.
    """

    asset_id: str
    name: str = Field(default="", description="the file's own name, when it was registered with one")
    distance: float
    meta: Metadata
    score: float | None = None
    probability: float | None = None


Verdict = Literal["match", "possible", "no_match", "uncalibrated", "uninformative", "incomplete"]


class Assessment(Frozen):
    """What a query's verdict rests on.

    Attributes:
        reason: in words.
        assets: how many assets the first match was the best of; thresholds follow their number.
        false_match_rate: the share of unrelated images that find a first match of this score or a better one; None
            beyond the scores that were measured, which end where a match is no nearer than other images.
        margin: by how much the second match's distance exceeds the first's.
        nearest_distractor: the distance of the nearest image that belongs to no asset; a first match beyond it comes
            first among assets only.
        fpr, threshold: the false-match rate of the verdict `match`, and the score that keeps it.
        threshold_high: the score that really has that rate is, with 95 % confidence, between `threshold` and this.
        possible_fpr, possible_threshold: the same of the verdict `possible`.
        reranked: how the features are stored that the best matches were compared by, `float16` or `int8`; None where
            distances are those of codes.
        view: which version of the query the matches are of: `as_is`, `mirror`, `rotation_90`, `mirror_rotation_90` …
        unsearched: the share (0..1) of the cells that were not searched, because a shard of the index did not answer.
    """

    reason: str
    assets: int
    false_match_rate: float | None = None
    margin: float | None = None
    nearest_distractor: float | None = None
    fpr: float | None = None
    threshold: float | None = None
    threshold_high: float | None = None
    possible_fpr: float | None = None
    possible_threshold: float | None = None
    reranked: Literal["float16", "int8"] | None = None
    view: str = "as_is"
    unsearched: float = Field(default=0.0, ge=0, le=1)


class QueryResult(Frozen):
    """The end of a good query.

    Attributes:
        matches: the nearest assets, nearest first; distractors are never among them.
        threshold: the distance up to which this query's first match counts as a match; None when that is not known.
        verdict: of the first match. `match`: at most `assessment.fpr` of unrelated images get this verdict. `possible`:
            for a person to look at; at most `assessment.possible_fpr` get this or the former. `no_match`: neither.
            `uncalibrated`: the collection has too few unrelated images to tell. `uninformative`: the query looks like
            too many different images for a match to mean anything (one colour, a page of text). `incomplete`:
            a part of the index did not answer, and in the rest there is no match; see `assessment.unsearched`.
        assessment: documents of version 0.1.0 lack it.
    """

    status: Literal["answered"] = "answered"
    task: Literal["aii.query"] = "aii.query"
    job_id: str
    collection: str
    generation: int
    journal_entry: str
    source_sha256: Digest
    extractor: ExtractorIdentity
    matches: list[Match]
    threshold: float | None
    verdict: Verdict
    assessment: Assessment | None = None
    options: QueryOptions
    provenance: Provenance


class LookupAnswer(Frozen):
    """What was found for one vector; see :class:`QueryResult`."""

    matches: list[Match]
    threshold: float | None
    verdict: Verdict
    assessment: Assessment


class LookupResult(Frozen):
    """The end of a good look-up: an answer for each vector, in order, all from one state of the collection."""

    status: Literal["looked_up"] = "looked_up"
    task: Literal["aii.lookup"] = "aii.lookup"
    job_id: str
    collection: str
    generation: int
    journal_entry: str
    source_sha256: Digest
    extractor: ExtractorIdentity
    answers: list[LookupAnswer]
    options: QueryOptions
    provenance: Provenance


class FeedbackResult(Frozen):
    """The end of a good feedback: the asset is not reported for that image any more, or it is again."""

    status: Literal["confirmed", "rejected"]
    task: Literal["aii.feedback"] = "aii.feedback"
    job_id: str
    collection: str
    asset_id: str
    source_sha256: Digest
    opinion: Opinion
    query_job: JobId
    provenance: Provenance
