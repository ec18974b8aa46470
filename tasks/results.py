"""Result documents: the JSON at ``results/{job_id}.json`` that commits a job.

A document carries all that is needed to audit an image and to rebuild its index entry.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, ConfigDict, Field, TypeAdapter

from tasks.messages import ActivationOptions, Digest, Frozen, JobId, Metadata, Opinion, QueryOptions


class ExtractorIdentity(Frozen):
    """The network that made the features; `sha256` is of its weights file."""

    name: str
    sha256: Digest
    dimension: int


class Quality(Frozen):
    """How far the protected image is from the original, over RGB pixels: `linf` in grey levels (0..255).

    `ssim` is of the images as their authors advise, shrunk to a shorter side of about 256 pixels; `delta_e` is the 99th
    percentile of CIEDE2000 over both at 96 × 96 pixels, of which 1 is just noticeable side by side.
    """

    psnr_db: float | None  # None: the images are identical, the ratio has no upper end
    ssim: float
    linf: int
    delta_e: float | None = Field(default=None, description="documents of version 0.1.0 lack it")


class Verification(Frozen):
    """How near the *encoded* protected image, decoded again, is to the registered code.

    `verified`: it is in the code's coarse cell, so that a search with nprobe 1 reaches the code; it fits the
    code better than the original did (`loss`, what the optimiser lowers: it rises with the distance to the
    code's reconstruction, and with the nearness of other cells); and it keeps the requested PSNR. `on_code`: it is even
    encoded to the same code. Distances are those of a search: squared L2 to the code's reconstruction, or Hamming.
    """

    # Documents of version 0.1.0 call the losses misfits, and programs read them so: the documents keep their names.
    model_config = ConfigDict(serialize_by_alias=True)

    verified: bool
    on_code: bool
    attempts: int
    steps: int
    distance_before: float  # of the original
    distance_after: float  # of the published file, decoded again
    loss_before: float = Field(
        validation_alias=AliasChoices("misfit_before", "loss_before"), serialization_alias="misfit_before"
    )
    loss_after: float = Field(
        validation_alias=AliasChoices("misfit_after", "loss_after"), serialization_alias="misfit_after"
    )


class Provenance(Frozen):
    """Who made the document, with what, and where the time went (milliseconds for this image)."""

    worker: str
    device: str
    versions: dict[str, str]
    timings_ms: dict[str, float]
    finished_at: str


class ActivationResult(Frozen):
    """The end of a good activation. `passive` means that no change of the image could be verified: what was published
    is the original picture, which is registered too."""

    status: Literal["activated", "passive"]
    task: Literal["aii.activate"] = "aii.activate"
    job_id: str
    collection: str
    generation: int
    asset_id: str
    name: str = Field(default="", description="the file's own name, when the request had one")
    source_sha256: Digest
    protected_key: str
    protected_sha256: Digest
    width: int
    height: int
    extractor: ExtractorIdentity
    codec: Digest | None = Field(default=None, description="of the collection; documents of version 0.1.0 lack it")
    code: str = Field(description="base64 of the index code, as sa_encode gives it")
    journal_entry: str
    meta: Metadata
    options: ActivationOptions
    quality: Quality
    verification: Verification
    uninformative: bool = Field(
        default=False, description="the image looks like too many different ones for its copies to be recognised"
    )
    metadata_lost: list[str] = Field(
        default_factory=list,
        description="what of the source's metadata, and of further pictures in it, is not published",
    )
    provenance: Provenance


class Match(Frozen):
    """One candidate.

    Attributes:
        distance: the squared L2 distance between the query's feature and the asset's code; Hamming's for LSH.
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


Verdict = Literal["match", "possible", "no_match", "uncalibrated", "uninformative"]


class Assessment(Frozen):
    """What a query's verdict rests on.

    Attributes:
        reason: in words.
        assets: how many assets the first match was the best of; thresholds follow their number.
        false_match_rate: the share of unrelated images that find a first match of this score or a better one.
        margin: by how much the second match's distance exceeds the first's.
        nearest_distractor: the distance of the nearest image that belongs to no asset; a first match beyond it comes
            first among assets only.
        fpr, threshold: the false-match rate of the verdict `match`, and the score that keeps it.
        possible_fpr, possible_threshold: the same of the verdict `possible`.
        view: which version of the query the matches are of: `as_is`, `mirror`, `rotation_90`, `mirror_rotation_90` …
    """

    reason: str
    assets: int
    false_match_rate: float | None = None
    margin: float | None = None
    nearest_distractor: float | None = None
    fpr: float | None = None
    threshold: float | None = None
    possible_fpr: float | None = None
    possible_threshold: float | None = None
    view: str = "as_is"


class QueryResult(Frozen):
    """The end of a good query.

    Attributes:
        matches: the nearest assets, nearest first; distractors are never among them.
        threshold: the distance up to which this query's first match counts as a match; None when that is not known.
        verdict: of the first match. `match`: at most `assessment.fpr` of unrelated images get this verdict. `possible`:
            for a person to look at; at most `assessment.possible_fpr` get this or the former. `no_match`: neither.
            `uncalibrated`: the collection has too few unrelated images to tell. `uninformative`: the query looks like
            too many different images for a match to mean anything (one colour, a page of text).
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


class Placement(Frozen):
    """Where a feature lies for a search that should meet an asset's code.

    Attributes:
        cell_rank: the place of the code's cell among all cells, by nearness to the feature; 1 is the nearest. It is the
            least nprobe with which a search compares the code at all. None for an index without cells.
        distance: to the code, as a search gives it: squared L2, or Hamming for LSH.
    """

    cell_rank: int | None
    distance: float


class ExplainedAsset(Frozen):
    """What the asset's files say; None where the file is not in the store, as of images that a collection was built
    from.

    Attributes:
        activation: the job that registered it.
        original, published: the two files themselves, unedited.
        distance_to_original, distance_to_published: of the query's feature to theirs, squared L2, without any index.
    """

    activation: JobId | None = None
    original_sha256: Digest | None = None
    original: Placement | None = None
    distance_to_original: float | None = None
    protected_key: str | None = None
    protected_sha256: Digest | None = None
    published: Placement | None = None
    distance_to_published: float | None = None


class Alignment(Frozen):
    """Where the query lies in the asset's picture, whose width and height are 1 each, and whose width over height is
    `aspect`. `mirrored` and `quarter_turns` (counter-clockwise) are what makes the query upright there first;
    `correlation` is that of the two pictures where they overlap."""

    mirrored: bool
    quarter_turns: int
    left: float
    top: float
    width: float
    height: float
    correlation: float
    aspect: float


class ExplanationResult(Frozen):
    """The end of a good explanation: why a query finds an asset, or does not.

    Attributes:
        found: whether the asset is among the matches of the query as it was asked.
        verdict, reason: of that query.
        rejected: whether a person said that the query is no copy of the asset; it is not reported then.
        view: the version of the query that lies nearest to the asset's code; the rest is of that one.
        cells: of the index; None for an index without cells.
        query: where the query lies.
        rank: the asset's place among all assets when its cell is searched too; None beyond the first hundred.
        smallest_nprobe: the least nprobe with which the asset is the first match; None where other assets are nearer,
            whatever is searched.
        score, probability: of the asset when its cell is searched too; None as in :class:`Match`.
        threshold: the distance up to which it would be a match then.
        verdict_then: the verdict with `smallest_nprobe`.
        alignment: None where the query is turned by other angles, distorted or cropped too much to be laid onto the
            asset's protected file, or that is not in the store.
        passive: an estimate of where the query would lie if the asset had been published unchanged: its feature, less
            what the activation moved the file's own feature by.
    """

    status: Literal["explained"] = "explained"
    task: Literal["aii.explain"] = "aii.explain"
    job_id: str
    collection: str
    generation: int
    asset_id: str
    source_sha256: Digest
    extractor: ExtractorIdentity
    found: bool
    verdict: Verdict
    reason: str
    rejected: bool
    view: str
    cells: int | None
    query: Placement
    rank: int | None
    smallest_nprobe: int | None
    score: float | None
    probability: float | None
    threshold: float | None
    verdict_then: Verdict | None
    asset: ExplainedAsset
    passive: Placement | None
    alignment: Alignment | None
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


class CompactionResult(Frozen):
    """The end of a good compaction: the current generation, and how many entries it holds."""

    status: Literal["compacted"] = "compacted"
    task: Literal["aii.compact"] = "aii.compact"
    job_id: str
    collection: str
    generation: int
    entries: int
    provenance: Provenance


class ExtractionResult(Frozen):
    """The end of a good extraction: `features` names an object in the collection's folder, float32 (N, D), row by row
    for the `images`; those that could not be read are `skipped`, with the reason."""

    status: Literal["extracted"] = "extracted"
    task: Literal["aii.extract"] = "aii.extract"
    job_id: str
    collection: str
    extractor: ExtractorIdentity
    features: Digest
    images: list[Digest]
    skipped: dict[Digest, str]
    provenance: Provenance


class FailureResult(Frozen):
    """The end of a job that cannot succeed: `code` from the error tree, `message` for a person."""

    status: Literal["failed"] = "failed"
    task: str
    job_id: str
    code: str
    message: str
    provenance: Provenance


# What producers ask for, as it ends well; and as it ends.
GoodResult = ActivationResult | QueryResult | LookupResult | ExplanationResult | FeedbackResult
ImageResult = GoodResult | FailureResult
Result = (
    ActivationResult
    | QueryResult
    | LookupResult
    | ExplanationResult
    | FeedbackResult
    | CompactionResult
    | ExtractionResult
    | FailureResult
)
_adapter: TypeAdapter[Result] = TypeAdapter(Annotated[Result, Field(discriminator="status")])


def parse_result(data: bytes) -> Result:
    """Read a result document; raises pydantic's ValidationError when it is not one."""
    return _adapter.validate_json(data)
