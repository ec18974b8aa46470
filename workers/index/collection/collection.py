"""An open collection: mapped segments, the delta, and the journal it reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from tasks.assets.records import look_up
from tasks.errors import CorruptSegment, InvalidRequest, ShardUnavailable
from tasks.ledger.commits import Seen
from tasks.messages import QueryOptions
from tasks.results import ExtractorIdentity
from tasks.shards import Shard
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.codec.stack import Found
from workers.index.codec.stored import Rows
from workers.index.collection.answers import Answer, Query, Snapshot, answers_of
from workers.index.collection.files import CollectionStore
from workers.index.collection.finder import Finder, OtherGeneration, Peers, Scope, Sought
from workers.index.collection.generation import Depths, Generation, asked_of
from workers.index.collection.journal import Journal, entry_order
from workers.index.collection.loading import check_extractor, load_generation
from workers.index.collection.manifest import Manifest, Pointer
from workers.index.collection.pinned import current_generation
from workers.index.collection.segment import Entry, Segment
from workers.index.collection.translation import UnknownCodec
from workers.index.verdicts.score import COHORT_CELLS

__all__ = ["READ_S", "Collection", "journal_incomplete"]

_KEPT_S: Final = 900.0  # in which other shards have followed, however large a merged segment is
# In which queries have ended that began before a switch. The last one to use a generation would free it, which keeps
# Python's lock for some ms, and unmaps its files.
READ_S: Final = 5.0


@dataclass(frozen=True)
class _Previous:
    """The generation before the current one, which queries may still use; kept up to a monotonic time.

    Attributes:
        asked: whether other shards may still have it, and ask for it.
    """

    generation: Generation
    until: float
    asked: bool


class Collection:
    """Search and registration. Thread-safe.

    Raises, when it is opened:
        CollectionMissing, CorruptSegment: see :meth:`CollectionStore.current` and :meth:`CollectionStore.fetch`.
        ExtractorMismatch: the collection was built with another extractor.

    Args:
        peers: the other shards, where the cells are divided among workers: of the inverted lists, only those of this
            worker's cells are here then.
    """

    def __init__(
        self, files: CollectionStore, journal: Journal, extractor: ExtractorIdentity, peers: Peers | None = None
    ) -> None:
        self._files = files
        self._journal = journal
        self._peers = peers
        self._shard = peers.shard if peers else None
        self._extractor = extractor
        self._following = threading.Lock()
        self._all_recorded = False
        incarnation = journal.incarnation()
        self._current = self._load(*current_generation(files, journal), None, incarnation)
        self._previous: _Previous | None = None

    @property
    def manifest(self) -> Manifest:
        return self._current.manifest

    @property
    def pointer(self) -> Pointer:
        """What names the current generation."""
        return self._current.pointer

    @property
    def codec(self) -> Codec:
        return self._current.codec

    @property
    def pinned(self) -> tuple[Manifest, Codec]:
        """The manifest and its codec, of one generation: another may be current at the next call."""
        generation = self._current
        return generation.manifest, generation.codec

    @property
    def incarnation(self) -> str:
        """See :meth:`Journal.incarnation`. Asked before :attr:`pinned`, it is never a later one than that is of."""
        return self._current.incarnation

    def settled(self, options: QueryOptions) -> QueryOptions:
        """A query's options, with the collection's own number of cells to search where they say none."""
        return options.model_copy(update={"nprobe": options.nprobe or self._current.usual_nprobe})

    @property
    def segments(self) -> list[Segment]:
        """Those of assets."""
        return self._current.assets.segments

    @property
    def changes(self) -> int:
        """How many changes in the journal no segment covers, as far as it was read."""
        return self._current.delta.changes

    @property
    def read_up_to(self) -> str:
        """The last entry of the journal that was read here."""
        return self._current.read_up_to

    def __len__(self) -> int:
        """Assets in the segments (journal not counted)."""
        return len(self._current.assets)

    @property
    def vectors(self) -> int:
        """Entries that a search may meet: assets in the segments, and distractors."""
        return len(self) + len(self._current.contents.distractors)

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, asset_id: str, code: Codes, meta: Mapping[str, str], feature: Features | None = None) -> str:
        """Add an asset's code (code_size,) to the journal, where every worker finds it; returns the journal entry.

        Args:
            feature: (D,), stored where the collection keeps features.
        """
        manifest = self.manifest
        stored = None if feature is None else self.stored(feature)
        return self._journal.add(asset_id, code, meta, feature=stored, codec=manifest.tag_of(manifest.codec))

    def stored(self, feature: Features) -> Rows | None:
        """A feature (D,) as it is stored, (row_bytes,); None where the collection keeps no features."""
        stored = self.manifest.stored
        return stored.encode(feature[None])[0] if stored else None

    def look_up(self, asset_id: str, *, assume: bool = False) -> Seen:
        """An asset's current state, in the present incarnation; see :func:`tasks.assets.records.look_up`."""
        incarnation = self.incarnation
        seen = look_up(self._journal, self._files.assets, self._files.removals, asset_id, assume=assume)
        return replace(seen, incarnation=incarnation)

    def all_recorded(self) -> bool:
        """Whether every asset has records; asks S3 until it has."""
        self._all_recorded = self._all_recorded or self._files.assets.complete()
        return self._all_recorded

    def covers(self, entry: str) -> bool:
        """Whether the segments hold what was registered at a journal entry, unless it changed later."""
        return entry_order(entry) <= entry_order(self.manifest.journal_entry)

    def superseded(self, asset_id: str) -> bool:
        """Whether the journal, as far as it was read, changed an asset that is in the segments."""
        delta = self._current.delta
        return delta.supersedes(asset_id, delta.changes)

    # ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def search(
        self, feature: Features, k: int, nprobe: int | None = None, where: Mapping[str, str] | None = None
    ) -> Answer:
        """The `k` assets nearest to one feature (D,) float32 with the metadata `where`; see :meth:`search_many`."""
        return self.search_many(feature[None], k, nprobe, where)[0]

    def search_many(
        self,
        features: Features,
        k: int,
        nprobe: int | None = None,
        where: Mapping[str, str] | None = None,
        without: frozenset[str] = frozenset(),
        supposed: Mapping[str, Entry] = MappingProxyType({}),
    ) -> list[Answer]:
        """The same for each of N features (N, D) float32, some assets left out, and some searched for as if they were
        registered as other entries; in as many cells as the collection usually searches, or `nprobe`.

        All that was registered before the call is included, and the answers come from one generation. The journal is
        read, and cells are found, once for all. Where a shard does not answer, the evidence says so. Where one has only
        the previous generation yet, all answer from that.
        """
        query = Query(features, k, nprobe, where or {}, without | supposed.keys(), supposed)
        if previous := self._asked_of_others:
            for generation in (None, previous):
                with suppress(OtherGeneration):
                    return self._answers(query, generation, strict=True)
        return self._answers(query, None, strict=False)

    def _answers(self, query: Query, of: Generation | None, *, strict: bool) -> list[Answer]:
        """Of one generation, or of the current one. Raises OtherGeneration if that one's journal is gone; and if
        `strict`, when another shard does not have it: otherwise that counts as one that does not answer."""
        depths = query.depths(of or self._current)
        snapshot = self._search_delta(query, depths, of)
        return answers_of(query, depths, snapshot, self._finder(snapshot.generation, strict=strict))

    def _finder(self, generation: Generation, *, strict: bool) -> Finder:
        peers = self._peers if generation.codec.has_cells else None
        return Finder(generation.contents, self._scope(generation, strict=strict), peers)

    def _scope(self, generation: Generation, *, strict: bool) -> Scope:
        name, cells = generation.manifest.collection, generation.codec.cells
        return Scope(name, generation.pointer, cells, strict)

    def find(self, pointer: Pointer, sought: Sequence[Sought], shard: Shard) -> tuple[Pointer, list[Found] | None]:
        """Search one shard's cells of a generation's segments, if that is the current or the previous one here; else
        say which one is current. It does not follow: what other shards ask cannot wait for downloads.

        Raises:
            InvalidRequest: what is sought is no query of this collection.
        """
        generation = self._known(pointer)
        if generation is None:
            return self._current.pointer, None
        if any(one.probe.query.shape[1] != generation.codec.inner_dimension for one in sought):
            raise InvalidRequest("What another shard seeks has another dimension than the collection.")
        cells = shard.cells(generation.codec.cells)
        return pointer, generation.contents.find([one.among(cells) for one in sought])

    def code_at(self, pointer: Pointer, number: int, position: int) -> Codes | None:
        """The code (code_size,) of the entry at a position of a generation's segment of assets; None where it is in
        another shard's cell, there is none, or the generation is none that :meth:`find` searches."""
        generation = self._known(pointer)
        segments = generation.assets.segments if generation else []
        return segments[number].code_at(position) if number < len(segments) else None

    def _known(self, pointer: Pointer) -> Generation | None:
        """The current generation, or the previous one that other shards may have, if it has this name."""
        current, previous = self._current, self._asked_of_others
        known = [current, previous] if previous else [current]
        return next((one for one in known if one.pointer == pointer), None)

    def entry_of(self, asset_id: str) -> Entry | None:
        """The entry of an asset, as far as the journal was read; None when it is not registered.

        Raises:
            ShardUnavailable: its code is another shard's, which does not answer.
        """
        generation = self._current
        changed, entry = generation.change_of(asset_id)
        place = None if changed else generation.assets.place_of(asset_id)
        if place is None:
            return entry
        segment = generation.assets.segments[place[0]]
        code = segment.code_at(place[1])
        if code is None:
            code = self._code_of_others(generation, *place)
        return Entry(code, segment.feature_at(place[1]))

    def _code_of_others(self, generation: Generation, number: int, position: int) -> Codes:
        scope = self._scope(generation, strict=False)
        code = self._peers.code_at(scope, number, position) if self._peers else None
        if code is None or len(code) != generation.codec.code_size:
            raise ShardUnavailable(
                "The shard of the index that has the asset's code did not answer in time. `aii status` says which one "
                "has no worker."
            )
        return code

    def holds(self, asset_id: str) -> bool:
        """Whether an asset is registered, as far as the journal was read."""
        generation = self._current
        changed, entry = generation.change_of(asset_id)
        return entry is not None if changed else generation.assets.holds(asset_id)

    def uninformative(self, feature: Features) -> bool:
        """Whether a feature (D,) lies where many different images do, so that no match of it means anything."""
        background = self._current.background
        return background is not None and background.uninformative(feature)

    def _search_delta(self, query: Query, depths: Depths, of: Generation | None) -> Snapshot:
        """The generation to answer from, and each query prepared for it, with the delta's hits."""
        while True:
            generation = of or self._current
            cells = query.nprobe or generation.usual_nprobe
            probes = generation.codec.probes(query.features, max(cells, COHORT_CELLS))
            with generation.lock:
                if self._caught_up(generation):
                    delta = generation.delta
                    found = asked_of(delta, probes, cells, depths, query.where)
                    return Snapshot(generation, found, delta.changes, generation.read_up_to)
            if of:
                raise OtherGeneration
            if not self.follow() and self._current is generation:  # another thread may have switched meanwhile
                raise journal_incomplete(generation.manifest.collection)

    @property
    def _asked_of_others(self) -> Generation | None:
        """The previous generation, if other shards may still have it."""
        previous = self._previous
        return previous.generation if previous and previous.asked else None

    def catch_up(self) -> None:
        """Read the journal, so that the first query after a quiet time does not have to; and free what no query uses
        any more."""
        if self._previous_is_over():
            with self._following:
                if self._previous_is_over():  # still: another one may have taken its place
                    self._replace_previous(None)
        generation = self._current
        with generation.lock:
            self._caught_up(generation)
        generation.speed_up()

    def _caught_up(self, generation: Generation) -> bool:
        """Apply new changes; False when the journal was trimmed past what was read, or has codes of a codec that the
        generation has not heard of, so that a newer one is needed."""
        while True:
            try:
                page = self._journal.read_after(generation.read_up_to, generation.translation)
            except UnknownCodec:
                return False
            if entry_order(page.cut) > entry_order(generation.read_up_to):
                return False
            if page.last is None:
                return True
            generation.delta.apply(page.changes)
            generation.read_up_to = page.last

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    def announced(self) -> bool:
        """Whether the journal announces another generation than the one mapped here, or the collection was deleted or
        built again; asks Redis only."""
        generation = self._current
        announced = self._journal.announced().generation not in (0, generation.manifest.generation)
        return announced or self._journal.incarnation() != generation.incarnation

    def follow(self) -> bool:
        """Switch to the published generation, if it is another one, while queries go on; returns whether it was.

        The old generation's memory is released after the last query that uses it; where there are other shards, it is
        kept for those that have not followed yet.
        """
        with self._following:
            old, incarnation = self._current, self._journal.incarnation()
            pointer, manifest = current_generation(self._files, self._journal)
            if pointer == old.pointer:  # not by number only: a collection can be deleted and built again
                old.incarnation = incarnation  # of the same collection: Redis was emptied or set back
                return False
            new = self._load(pointer, manifest, old, incarnation)
            self._caught_up(new)
            new.speed_up()
            self._replace_previous(self._kept(old, manifest))
            self._current = new
        self._files.forget(old.manifest.copies(self._shard) - manifest.copies(self._shard))
        return True

    def _kept(self, old: Generation, manifest: Manifest) -> _Previous:
        """A generation that another follows: for other shards, unless the collection was deleted and built again."""
        follows = manifest.generation > old.manifest.generation and manifest.has_had(old.manifest.codec)
        asked = self._peers is not None and follows
        return _Previous(old, time.monotonic() + (_KEPT_S if asked else READ_S), asked)

    def _previous_is_over(self) -> bool:
        previous = self._previous
        return previous is not None and time.monotonic() > previous.until

    def _replace_previous(self, by: _Previous | None) -> None:
        """Free the previous generation; other threads have Python's lock between its parts."""
        parts = self._previous.generation.parts() if self._previous else []
        self._previous = by
        while parts:
            parts.pop()

    def _load(self, pointer: Pointer, manifest: Manifest, old: Generation | None, incarnation: str) -> Generation:
        check_extractor(manifest.collection, manifest.extractor, self._extractor)
        generation = load_generation(self._files, self._journal, pointer, manifest, old, self._shard)
        generation.incarnation = incarnation
        return generation


def journal_incomplete(collection: str) -> CorruptSegment:
    return CorruptSegment(f"The journal of {collection!r} is incomplete: run `aii index repair {collection}`.")
