"""Why a query finds an asset, or does not."""

from __future__ import annotations

from typing import Literal

from tasks.messages import Digest, Frozen, JobId, QueryOptions
from tasks.results.common import ExtractorIdentity, Provenance
from tasks.results.search import Verdict


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
