"""What the jobs that operators and workers submit upon a whole collection end with."""

from __future__ import annotations

from typing import Literal

from tasks.messages import Digest, Frozen
from tasks.results.common import ExtractorIdentity, Provenance


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
