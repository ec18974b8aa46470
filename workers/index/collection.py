"""A collection as a worker holds it: mapped segments, the delta, and the journal it follows."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from tasks.errors import ExtractorMismatch
from tasks.results import ExtractorIdentity, Match
from workers.index.codec import Codec, Codes, Features
from workers.index.delta import Delta
from workers.index.journal import Journal
from workers.index.manifest import CollectionStore, Manifest
from workers.index.segment import Segment


@dataclass(frozen=True)
class Answer:
    """The assets nearest to a query, nearest first, and the state of the index that says so."""

    matches: list[Match]
    generation: int
    journal_entry: str


class Collection:
    """Search and registration. Thread-safe."""

    def __init__(self, manifest: Manifest, codec: Codec, segments: list[Segment], journal: Journal) -> None:
        self.manifest = manifest
        self.codec = codec
        self._segments = segments
        self._journal = journal
        self._delta = Delta(codec)
        self._read_up_to = manifest.journal_entry
        self._lock = threading.Lock()

    @classmethod
    def open(cls, files: CollectionStore, journal: Journal, extractor: ExtractorIdentity) -> Collection:
        """Download what is missing, check it, map it.

        Raises:
            CollectionMissing, CorruptSegment: see :meth:`CollectionStore.current` and :meth:`CollectionStore.fetch`.
            ExtractorMismatch: the collection was built with another extractor; its codes mean nothing to this one.
        """
        manifest = files.current()
        check_extractor(manifest.collection, manifest.extractor, extractor)
        codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
        segments = [Segment(files.fetch(part.index), files.fetch(part.assets)) for part in manifest.segments]
        return cls(manifest, codec, segments, journal)

    def __len__(self) -> int:
        """Entries in the segments (journal not counted)."""
        return sum(len(segment) for segment in self._segments)

    def register(self, asset_id: str, code: Codes) -> str:
        """Append an asset's code (code_size,) to the journal, where every worker finds it; returns the entry's name."""
        return self._journal.append(asset_id, code)

    def search(self, feature: Features, k: int, nprobe: int) -> Answer:
        """The `k` assets nearest to one feature (D,) float32, everything included that was registered before the
        call."""
        with self._lock:
            self._catch_up()
            masked = self._delta.masked
            hits = self._delta.search(feature, k, nprobe)
            entry = self._read_up_to
            for segment in self._segments:
                hits += _unmasked(segment, feature, k, nprobe, masked)
        hits.sort(key=lambda hit: hit[1])
        matches = [Match(asset_id=asset_id, distance=distance) for asset_id, distance in hits[:k]]
        return Answer(matches=matches, generation=self.manifest.generation, journal_entry=entry)

    def _catch_up(self) -> None:
        while additions := self._journal.read_after(self._read_up_to):
            for addition in additions:
                self._delta.add(addition.asset_id, addition.code)
            self._read_up_to = additions[-1].entry


def _unmasked(segment: Segment, feature: Features, k: int, nprobe: int, masked: object) -> list[tuple[str, float]]:
    """The first `k` hits of a segment that the delta does not overrule, looking deeper only when it has to."""
    depth = k
    while True:
        hits = segment.search(feature, min(depth, max(len(segment), 1)), nprobe)
        good = [hit for hit in hits if hit[0] not in masked]  # type: ignore[operator]  # a set-like view
        if len(good) >= k or len(hits) < depth:
            return good[:k]
        depth *= 4


def check_extractor(collection: str, pinned: ExtractorIdentity, extractor: ExtractorIdentity) -> None:
    """Raise ExtractorMismatch unless the collection was built with this very extractor."""
    if pinned != extractor:
        raise ExtractorMismatch(
            f"Collection {collection!r} is pinned to extractor {pinned.name} {pinned.sha256[:12]}, this "
            f"worker holds {extractor.name} {extractor.sha256[:12]}: start a worker with that extractor, or build the "
            "collection anew."
        )
