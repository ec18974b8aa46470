"""The documents that say what a collection consists of: its manifests, and the pointer to the current one."""

from __future__ import annotations

from pydantic import Field

from tasks.messages import Digest, Frozen
from tasks.results import ExtractorIdentity

__all__ = ["Manifest", "Pointer", "SegmentFiles"]


class SegmentFiles(Frozen):
    """The files of a segment, by digest."""

    index: Digest
    assets: Digest
    meta: Digest
    count: int = Field(ge=0)


class Manifest(Frozen):
    """One generation of a collection.

    Attributes:
        factory: FAISS factory string of the codec.
        codec: digest of the codec's file.
        journal_entry: the last journal entry that the segments cover.
        threshold: the distance up to which a query's first match counts as a match; None when it was not calibrated.
        threshold_fpr: the share of unrelated images below the threshold, as calibrated.
    """

    collection: str
    generation: int = Field(ge=1)
    factory: str
    extractor: ExtractorIdentity
    codec: Digest
    segments: list[SegmentFiles]
    journal_entry: str
    threshold: float | None
    threshold_fpr: float | None
    created_at: str

    @property
    def digests(self) -> set[str]:
        """The digests of all its files."""
        return {self.codec, *(d for part in self.segments for d in (part.index, part.assets, part.meta))}


class Pointer(Frozen):
    """Names a manifest by its generation and the sha256 of its bytes; the collection's `current.json` is one."""

    generation: int
    sha256: Digest
