"""Repair: assets are re-registered from their documents in S3 after Redis was emptied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Collection as AnyCollection
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from tasks.assets.feedback import Feedback
from tasks.storage import ObjectStore
from workers.index.codec.codec import Codec
from workers.index.collection.changes import decode_feature
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal, addition, entry_order, named, removal
from workers.index.collection.manifest import Manifest
from workers.index.collection.pinned import pin_current
from workers.index.collection.segment import Segment, meta_text
from workers.index.collection.segments import open_segments
from workers.index.collection.translation import Translation
from workers.index.maintenance.activations import OnRecord, activations_of
from workers.index.maintenance.documents import Activation, belonging, code_in

__all__ = ["Repaired", "repair"]

_CHANGES_AT_ONCE: Final = 500

_Done = Literal["registered", "removed"]
_Entry = tuple[bytes, str]  # code, and metadata as :func:`meta_text` writes them


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        assets: assets with a result document.
        registered, removed: how many of them were registered, or removed, again.
        unreadable: result documents that could not be read.
    """

    assets: int
    registered: int
    removed: int
    unreadable: int


def repair(
    store: ObjectStore, files: CollectionStore, journal: Journal, progress: Callable[[int, int], None]
) -> Repaired:
    """Register and remove again what S3 has on record and neither the segments nor the journal contain: after Redis was
    emptied, or an older state of S3 or Redis was restored.

    The latest of an asset's newest result document, its noted removal and its journal entry decides. After an
    interruption at any moment it can be run again, and does not read again what it has read on this machine.

    Raises:
        CollectionBusy, DiskUnavailable: see :func:`activations_of`.
    """
    manifest = pin_current(files, journal)
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    translation = Translation(files, manifest, codec)
    with activations_of(files, manifest, "repair") as documents:
        documents.read(store, files.removals, belonging(manifest, translation), progress)
        journal.continue_after(max(manifest.journal_entry, documents.last_entry, key=entry_order))
        _align(journal, manifest)
        repair_of = _Repair(journal, manifest, translation, open_segments(files, manifest, codec))
        done = Counter(what for some in documents.each() for what in repair_of.each(some))
        repaired = Repaired(len(documents), done["registered"], done["removed"], documents.unreadable)
    documents.delete()
    Feedback(journal.client, store, manifest.collection).restore()
    return repaired


class _Repair:
    """Makes segments and journal say what is on record."""

    def __init__(
        self, journal: Journal, manifest: Manifest, translation: Translation, segments: Sequence[Segment]
    ) -> None:
        self._journal, self._manifest, self._translation, self._segments = journal, manifest, translation, segments
        self._changed: dict[str, _Entry | None] = {
            change.asset_id: None if change.code is None else (change.code.tobytes(), meta_text(change.meta))
            for change in journal.all_after(manifest.journal_entry, translation)
        }

    def each(self, some: Sequence[OnRecord]) -> Iterator[_Done]:
        """What was done for those of some assets that were not as documented."""
        present = self._present([one.asset_id for one in some])
        needed = filter(None, (self._needed(one, present.get(one.asset_id)) for one in some))
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
