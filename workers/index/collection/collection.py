"""A collection as a worker holds it: mapped segments, the delta, and the journal it follows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from tasks.errors import CorruptSegment, ExtractorMismatch
from tasks.results import ExtractorIdentity, Match
from workers.index.codec.codec import Codec, Codes, Features, Probe
from workers.index.collection.delta import Delta
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal, entry_order
from workers.index.collection.manifest import Manifest, SegmentFiles
from workers.index.collection.segment import Hit, Segment

__all__ = ["Answer", "Collection", "check_extractor", "journal_was_cut", "open_segments"]


@dataclass(frozen=True)
class Answer:
    """The assets nearest to a query, nearest first, and the state of the index that says so."""

    matches: list[Match]
    generation: int
    journal_entry: str
    threshold: float | None


@dataclass
class _Held:
    """One generation in force: what is mapped of it, and the delta over it."""

    manifest: Manifest
    codec: Codec
    segments: list[Segment]
    delta: Delta
    read_up_to: str
    lock: threading.Lock = field(default_factory=threading.Lock)


class Collection:
    """Search, registration, removal. Thread-safe.

    Raises, when it is made:
        CollectionMissing, CorruptSegment: see :meth:`CollectionStore.current` and :meth:`CollectionStore.fetch`.
        ExtractorMismatch: the collection was built with another extractor; its codes mean nothing to this one.
    """

    def __init__(self, files: CollectionStore, journal: Journal, extractor: ExtractorIdentity) -> None:
        self._files = files
        self._journal = journal
        self._extractor = extractor
        self._following = threading.Lock()
        self._held = self._load(files.current(), None)

    @property
    def manifest(self) -> Manifest:
        return self._held.manifest

    @property
    def codec(self) -> Codec:
        return self._held.codec

    @property
    def segments(self) -> list[Segment]:
        return self._held.segments

    @property
    def changes(self) -> int:
        """How many entries of the journal no segment covers, as far as it was read."""
        return self._held.delta.changes

    def __len__(self) -> int:
        """Entries in the segments (journal not counted)."""
        return sum(len(segment) for segment in self._held.segments)

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, asset_id: str, code: Codes, meta: Mapping[str, str]) -> str:
        """Append an asset's code (code_size,) to the journal, where every worker finds it; returns the entry's name."""
        return self._journal.add(asset_id, code, meta)

    def removed_since(self, asset_id: str, entry: str) -> bool:
        """Whether an asset was removed after it had been registered at `entry`."""
        removal = self._files.removals.entry(asset_id)
        return removal is not None and entry_order(removal) > entry_order(entry)

    def overruled(self, asset_id: str) -> bool:
        """Whether the journal knows better about an asset than the segments do, as far as it was read."""
        delta = self._held.delta
        return delta.overrules(asset_id, delta.changes)

    # ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def search(self, feature: Features, k: int, nprobe: int, where: Mapping[str, str] | None = None) -> Answer:
        """The `k` assets nearest to one feature (D,) float32 that carry the metadata `where`; everything included that
        was registered before the call, and all of it from one generation."""
        held, probe, hits, moment, entry = self._search_delta(feature, k, nprobe, where or {})

        def wanted(hit: Hit) -> bool:
            return not held.delta.overrules(hit.asset_id, moment)

        for segment in held.segments:
            hits += _best(partial(segment.search, probe, where=where or {}), k, wanted)
        hits.sort(key=lambda hit: hit.distance)
        matches = [Match(asset_id=hit.asset_id, distance=hit.distance, meta=dict(hit.meta)) for hit in hits[:k]]
        return Answer(matches, held.manifest.generation, entry, held.manifest.threshold)

    def _search_delta(
        self, feature: Features, k: int, nprobe: int, where: Mapping[str, str]
    ) -> tuple[_Held, Probe, list[Hit], int, str]:
        """The generation to answer from, the query for it, the delta's hits, and the moment they are of: the count of
        its changes and the journal's entry."""
        while True:
            held = self._held
            probe = held.codec.probe(feature, nprobe)
            with held.lock:
                if self._caught_up(held):
                    hits = _best(partial(held.delta.search, probe, where=where), k, lambda _: True)
                    return held, probe, hits, held.delta.changes, held.read_up_to
            if not self.follow() and self._held is held:  # another thread may have followed while this one waited
                raise journal_was_cut(held.manifest.collection)

    def catch_up(self) -> None:
        """Read the journal, so that the first query after a quiet time does not have to read all of it."""
        held = self._held
        with held.lock:
            self._caught_up(held)

    def _caught_up(self, held: _Held) -> bool:
        """Apply the news; False when the journal was cut beyond what was read, and only a newer generation can help."""
        while True:
            news = self._journal.read_after(held.read_up_to)
            if entry_order(news.cut) > entry_order(held.read_up_to):
                return False
            if not news.changes:
                return True
            held.delta.apply(news.changes)
            held.read_up_to = news.changes[-1].entry

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    def announced(self) -> bool:
        """Whether the journal speaks of another generation than the one in force here; asks Redis only."""
        return self._journal.announced().generation not in (0, self.manifest.generation)

    def follow(self) -> bool:
        """Put the published generation in force, when it is another one; queries go on meanwhile. True if it was.

        What the old one held is let go as soon as the last query that uses it has its answer.
        """
        with self._following:
            old, manifest = self._held, self._files.current()
            if manifest == old.manifest:  # not by number only: a collection can be deleted and built anew
                return False
            new = self._load(manifest, old)
            self._caught_up(new)
            self._held = new
        self._files.forget(old.manifest.digests - manifest.digests)
        return True

    def _load(self, manifest: Manifest, old: _Held | None) -> _Held:
        """Download what is missing, check it, map it."""
        check_extractor(manifest.collection, manifest.extractor, self._extractor)
        if old and old.manifest.codec == manifest.codec:
            codec = old.codec
        else:
            codec = Codec.read(self._files.fetch(manifest.codec), manifest.factory)
            codec.warm()
        segments = open_segments(self._files, manifest, codec)
        return _Held(manifest, codec, segments, Delta(codec), manifest.journal_entry)


def open_segments(files: CollectionStore, manifest: Manifest, codec: Codec) -> list[Segment]:
    """Map a generation's segments, from checked local copies."""
    return [_open(files, part, codec) for part in manifest.segments]


def _open(files: CollectionStore, part: SegmentFiles, codec: Codec) -> Segment:
    """Once more when a file is gone: another process with the same cache may have deleted it between the check and the
    opening."""
    try:
        return Segment(files.fetch_segment(part), codec)
    except (FileNotFoundError, RuntimeError):  # FAISS raises the latter for a file it cannot open
        pass
    try:
        return Segment(files.fetch_segment(part), codec)
    except (FileNotFoundError, RuntimeError) as error:
        raise CorruptSegment(f"Segment {part.index} cannot be opened: {error}") from error


def journal_was_cut(collection: str) -> CorruptSegment:
    return CorruptSegment(f"The journal of {collection!r} was cut off: run `aii index repair {collection}`.")


def _best(find: Callable[[int], Iterator[Hit | None]], k: int, wanted: Callable[[Hit], bool]) -> list[Hit]:
    """The first `k` wanted hits of a search, looking deeper only when it has to."""
    depth = k
    while True:
        hits = list(find(depth))
        good = [hit for hit in hits if hit and wanted(hit)]
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
