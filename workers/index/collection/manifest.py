"""The documents that say what a collection consists of: its manifests, and the pointer to the current one."""

from __future__ import annotations

from typing import Final

from pydantic import Field, ValidationError

from tasks.messages import USUAL_NPROBE, Digest, Frozen
from tasks.results import ExtractorIdentity
from tasks.shards import Shard
from workers.index.codec.list_blocks import Part, part_of
from workers.index.codec.stored import FeatureFormat, FeatureType
from workers.index.verdicts.calibration import Calibration

__all__ = ["CodecFile", "ListBlocks", "Manifest", "Pointer", "SegmentFiles", "SettledDocuments", "of_newer_version"]

_TAG: Final = 16


class ListBlocks(Frozen):
    """By what a part of a segment's inverted lists is checked; see :mod:`workers.index.codec.list_blocks`.

    Attributes:
        cells: how many lists there are.
        digests: of each block of neighbouring cells.
    """

    cells: int = Field(ge=1)
    digests: list[Digest] = Field(min_length=1)


class SegmentFiles(Frozen):
    """The files of a segment, by digest. The entries of a segment of `distractors` belong to no asset: they are what
    matches are compared with, and no answer names them.

    Attributes:
        count: entries that are current.
        lookup: finds an asset's position; segments of earlier versions lack it.
        features: stored features, where the collection keeps them.
        hidden: positions of the entries that later changes replaced or removed, one file for each time.
        superseded: how many these are.
        blocks: of the index' inverted lists, of which shards fetch some; small segments, those of earlier versions and
            those without cells lack them, and are fetched whole.
    """

    index: Digest
    assets: Digest
    meta: Digest
    count: int = Field(ge=0)
    distractors: bool = False
    lookup: Digest | None = None
    features: Digest | None = None
    hidden: list[Digest] = Field(default=[])
    superseded: int = Field(default=0, ge=0)
    blocks: ListBlocks | None = None

    @property
    def name(self) -> str:
        """Names the segment by those of its files that stay the same as long as it exists."""
        return " ".join([self.index, self.assets, self.meta, self.lookup or "", self.features or ""])

    @property
    def digests(self) -> set[str]:
        """The digests of all its files."""
        return {*self.lasting, *self.hidden}

    @property
    def lasting(self) -> list[str]:
        """The digests of those that stay the same as long as the segment exists."""
        return [digest for digest in (self.index, self.assets, self.meta, self.lookup, self.features) if digest]

    def part_of(self, shard: Shard | None) -> Part | None:
        """What of the index a worker of a shard needs; None for all of it."""
        if shard is None or self.blocks is None:
            return None
        part = part_of(shard.cells(self.blocks.cells), self.blocks.digests, self.blocks.cells)
        return part if len(part.blocks) < len(self.blocks.digests) else None

    def copies(self, shard: Shard | None) -> list[str]:
        """The names of the local copies of the files that stay the same, as a worker of a shard has them."""
        part = self.part_of(shard)
        names = {self.index: part.name} if part else {}
        return [names.get(digest, digest) for digest in self.lasting]


class CodecFile(Frozen):
    """A codec that a collection has or had."""

    digest: Digest
    factory: str


class SettledDocuments(Frozen):
    """What segments are known to hold: what result documents say that the store changed before a time (ms, its clock),
    or what is newer. A repair need not read them; see :mod:`workers.index.collection.settling`.

    Attributes:
        entry: none of them names a later entry of the journal.
    """

    before_ms: int
    entry: str


class Manifest(Frozen):
    """One generation of a collection.

    Attributes:
        factory: FAISS factory string of the codec.
        codec: digest of the codec's file.
        segments: an asset is current in one of them at most.
        journal_entry: the last journal entry that the segments cover.
        threshold: the distance up to which a query's first match counts as a match, in manifests of version 0.1.0;
            in later ones that of the usual query at nprobe 1; None when it was not calibrated.
        threshold_fpr: the share of unrelated images below the threshold, as calibrated.
        calibration: what scores are worth; manifests of version 0.1.0 lack it.
        background: the file of the background images' features, where there are any.
        duplicates: the file with the groups of near-duplicates that the build found, where there were any.
        nprobe: how many cells are searched for a query that does not say; None for the usual number.
        features: how features are stored beside the codes, for exact re-ranking; None where they are not.
        codecs: all that the collection has had, the first one first, when it was trained again: journal and documents
            hold codes of each.
        settled: which result documents the segments are known to hold; None where that is not known.
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
    calibration: Calibration | None = None
    background: Digest | None = None
    duplicates: Digest | None = None
    nprobe: int | None = Field(default=None, ge=1, le=65_536)
    features: FeatureType | None = None
    codecs: list[CodecFile] = Field(default=[])
    settled: SettledDocuments | None = None

    @property
    def digests(self) -> set[str]:
        """The digests of all its files."""
        others = {digest for digest in (self.background, self.duplicates) if digest}
        others |= {known.digest for known in self.codecs}
        return {self.codec, *others}.union(*(part.digests for part in self.segments))

    def copies(self, shard: Shard | None) -> set[str]:
        """The names of all local copies that there may be of its files."""
        return self.digests.union(*(part.copies(shard) for part in self.segments))

    def tag_of(self, codec: str) -> str:
        """What names a codec in the journal: "" for the first one that the collection had."""
        return codec[:_TAG] if self.codecs and codec != self.codecs[0].digest else ""

    def has_had(self, codec: str | None) -> bool:
        """Whether a codec is or was the collection's; documents of version 0.1.0 name none."""
        return codec in (None, self.codec) or any(codec == known.digest for known in self.codecs)

    @property
    def stored(self) -> FeatureFormat | None:
        """How features are stored; None where they are not."""
        return FeatureFormat(self.features, self.extractor.dimension) if self.features else None

    @property
    def usual_nprobe(self) -> int:
        """How many cells are searched for a query that does not say. The threshold of a manifest of version 0.1.0 was
        measured with one."""
        measured_with_one = self.calibration is None and self.threshold is not None
        return self.nprobe or (1 if measured_with_one else USUAL_NPROBE)

    @property
    def assets(self) -> int:
        """Entries that belong to assets (journal not counted)."""
        return sum(part.count for part in self.segments if not part.distractors)


class Pointer(Frozen):
    """Names a manifest by its generation and the sha256 of its bytes; the collection's `current.json` is one."""

    generation: int
    sha256: Digest


def of_newer_version(error: ValidationError) -> bool:
    """Whether a document has fields that this version does not know: each version reads those of the ones before it."""
    return any(problem["type"] == "extra_forbidden" for problem in error.errors())
