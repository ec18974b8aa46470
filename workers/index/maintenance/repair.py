"""Repair: assets are re-registered from their documents in S3 after Redis was emptied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Collection as AnyCollection
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from tasks.assets.feedback import Feedback
from tasks.bounded_map import bounded_map
from tasks.storage import ObjectStore
from workers.index.codec.codec import Codec
from workers.index.collection.changes import decode_feature
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal, addition, entry_order, named, removal
from workers.index.collection.manifest import Manifest, SettledDocuments
from workers.index.collection.pinned import current_manifest, pin_current
from workers.index.collection.segment import Segment, meta_text
from workers.index.collection.segments import open_segments
from workers.index.collection.settling import MARGIN_MS
from workers.index.collection.translation import Translation
from workers.index.maintenance.activations import OnRecord, activations_of
from workers.index.maintenance.documents import Activation, belonging, code_in
from workers.index.maintenance.newest import Newest

__all__ = ["Repaired", "repair"]

_CHANGES_AT_ONCE: Final = 500
_READERS: Final = 16

_Done = Literal["registered", "removed"]
_Entry = tuple[bytes, str]  # code, and metadata as :func:`meta_text` writes them


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        documents: result documents in S3, of whatever job.
        passed_over: how many of them the segments are known to hold: they were not read.
        assets: assets with a result document that was read.
        registered, removed: how many of them were registered, or removed, again.
        unreadable: result documents that could not be read.
    """

    documents: int
    passed_over: int
    assets: int
    registered: int
    removed: int
    unreadable: int


def repair(
    store: ObjectStore, files: CollectionStore, journal: Journal, progress: Callable[[int, int], None], *,
    read_all: bool = False, believe_store: bool = True,
) -> Repaired:  # fmt: skip
    """Register and remove again what S3 has on record and neither the segments nor the journal contain: after Redis was
    emptied, or an older state of S3 or Redis was restored.

    The latest of an asset's newest result document, its noted removal and its journal entry decides. After an
    interruption at any moment it can be run again, and does not read again what it has read on this machine.

    Args:
        read_all: read documents that the segments are known to hold, too.
        believe_store: take the manifest that the store names, though Redis has noted another one.

    Raises:
        CollectionBusy, DiskUnavailable: see :func:`activations_of`.
        CorruptSegment: a file of the collection is missing, damaged or cannot be opened; nothing was registered. Or,
            unless the store is believed, its manifest is not the one that was noted.
    """
    manifest = (pin_current if believe_store else current_manifest)(files, journal)
    reading, now_ms = journal.settling.begin(), files.now_ms()
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    translation = Translation(files, manifest, codec)
    belongs = belonging(manifest, translation)
    segments = open_segments(files, manifest, codec)
    settled = None if read_all else _settled(files, manifest, now_ms)
    with activations_of(files, manifest, "repair", settled.before_ms if settled else None) as documents:
        documents.read(store, files.removals, belongs, progress)
        covered = settled.entry if settled else manifest.journal_entry
        journal.continue_after(max(manifest.journal_entry, covered, documents.last_entry, key=entry_order))
        _align(journal, manifest)
        newest = Newest(store, files.assets, belongs, manifest.journal_entry)
        repair_of = _Repair(journal, manifest, translation, segments, newest)
        done = Counter(what for some in documents.each() for what in repair_of.each(some))
        repaired = Repaired(
            documents.listed,
            documents.passed_over,
            len(documents),
            done["registered"],
            done["removed"],
            documents.unreadable,
        )
    documents.delete()
    Feedback(journal.client, store, manifest.collection).restore()
    journal.settling.end(reading, None if repaired.unreadable else now_ms - MARGIN_MS)
    return repaired


def _settled(files: CollectionStore, manifest: Manifest, now_ms: int) -> SettledDocuments | None:
    """Which documents need not be read. None in a store of version 0.1.0, which has not yet what tells the newest state
    of an asset (:class:`Newest`), nor where its clock was once ahead of what it is now."""
    settled = manifest.settled
    return settled if settled and settled.before_ms <= now_ms and files.assets.complete() else None


class _Repair:
    """Makes segments and journal say what is on record."""

    def __init__(
        self, journal: Journal, manifest: Manifest, translation: Translation, segments: Sequence[Segment],
        newest: Newest,
    ) -> None:  # fmt: skip
        self._journal, self._manifest, self._translation, self._segments = journal, manifest, translation, segments
        self._newest = newest
        self._changed: dict[str, _Entry | None] = {
            change.asset_id: None if change.code is None else (change.code.tobytes(), meta_text(change.meta))
            for change in journal.all_after(manifest.journal_entry, translation)
        }

    def each(self, some: Sequence[OnRecord]) -> Iterator[_Done]:
        """What was done for those of some assets that were not as documented."""
        present = self._present([one.asset_id for one in some])
        # What is present and not as documented may be newer than all documents that were read.
        doubtful = [one for one in some if (now := present.get(one.asset_id)) and self._needed(one, now)]
        found = zip(doubtful, bounded_map(self._newest.of, doubtful, _READERS), strict=True)
        newest = {one.asset_id: known for one, known in found}
        known = filter(None, (newest.get(one.asset_id, one) for one in some))
        needed = filter(None, (self._needed(one, present.get(one.asset_id)) for one in known))
        while changes := list(islice(needed, _CHANGES_AT_ONCE)):
            entries = self._journal.write_all([change for _, change in changes])
            yield from (what for (what, _), entry in zip(changes, entries, strict=True) if entry)

    def _needed(self, asset: OnRecord, present: _Entry | None) -> tuple[_Done, list[str]] | None:
        """The change of the journal that an asset needs, if any."""
        activation = asset.current
        if activation is None:
            return ("removed", removal(asset.asset_id, asset.removal)) if present else None
        if self._is_as_documented(present, activation):
            return None
        code, of_codec = code_in(activation, self._manifest)
        meta = named(activation.meta, activation.name)
        feature = decode_feature(activation.feature) if self._manifest.features else None
        entry, facts = activation.journal_entry, activation.facts
        return "registered", addition(asset.asset_id, code, meta, entry, facts, feature, of_codec)

    def _is_as_documented(self, present: _Entry | None, activation: Activation) -> bool:
        """Whether an entry, if any, is that of a document. Of one with a code of a former codec, the segments hold a
        better code than can be made from it."""
        manifest = self._manifest
        if present is None or present[1] != meta_text(named(activation.meta, activation.name)):
            return False
        former = activation.codec not in (None, manifest.codec)
        if former and entry_order(activation.journal_entry) <= entry_order(manifest.journal_entry):
            return True
        return present[0] == self._translation.read(*code_in(activation, manifest)).tobytes()

    def _present(self, wanted: AnyCollection[str]) -> dict[str, _Entry]:
        """Some assets by segments and journal; those that are not registered are missing."""
        present: dict[str, _Entry] = {}
        for segment in self._segments:
            found = segment.find(wanted)
            for i, code in zip(found.tolist(), segment.codes_at(found), strict=True):
                present[segment.assets[i]] = (code.tobytes(), segment.metas[i])
        for asset_id in self._changed.keys() & wanted:
            entry = self._changed[asset_id]
            if entry is None:
                present.pop(asset_id, None)
            else:
                present[asset_id] = entry
        return present


def _align(journal: Journal, manifest: Manifest) -> None:
    """Make the journal's state agree with the current generation, and announce that to the workers."""
    announced = journal.announced()
    whole = announced.generation and entry_order(announced.cut) <= entry_order(manifest.journal_entry)
    # What was cut off after the segments' last entry cannot be read any more: forget it, to register it again.
    gone = max(manifest.journal_entry, announced.cut, key=entry_order)
    journal.announce(manifest.generation, announced.cut if whole else manifest.journal_entry, covered=gone)
