"""Repair: assets are re-registered from their documents in S3 after Redis was emptied."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection as AnyCollection
from dataclasses import dataclass

from tasks.assets.feedback import Feedback
from tasks.assets.records import facts_of
from tasks.results import ActivationResult
from tasks.storage import ObjectStore
from workers.index.codec.codec import Codec
from workers.index.collection.changes import decode_feature
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import BEGINNING, Journal, entry_order, named
from workers.index.collection.manifest import Manifest
from workers.index.collection.pinned import pin_current
from workers.index.collection.segment import meta_text
from workers.index.collection.segments import open_segments
from workers.index.collection.translation import Translation
from workers.index.maintenance.documents import code_in, newest_activations

__all__ = ["Repaired", "repair"]


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

    The latest of an asset's newest result document, its noted removal and its journal entry decides.
    """
    manifest = pin_current(files, journal)
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    translation = Translation(files, manifest, codec)
    documents = newest_activations(store, manifest, translation, progress)
    newest, removals = documents.newest, files.removals.entries()
    known = [manifest.journal_entry, *(result.journal_entry for result in newest.values()), *removals.values()]
    journal.continue_after(max(known, key=entry_order))
    _align(journal, manifest)
    present = _current_entries(files, manifest, codec, journal, {*newest, *removals}, translation)
    registered = removed = 0
    for asset_id in {*newest, *removals}:
        result, removal = newest.get(asset_id), removals.get(asset_id, BEGINNING)
        if result and entry_order(result.journal_entry) > entry_order(removal):
            if not _is_as_documented(present.get(asset_id), result, manifest, translation):
                (code, of_codec), meta = code_in(result, manifest), named(result.meta, result.name)
                facts = facts_of(result)
                feature = decode_feature(result.feature) if manifest.features else None
                registered += bool(journal.add(asset_id, code, meta, result.journal_entry, facts, feature, of_codec))
        elif asset_id in present:
            removed += bool(journal.remove(asset_id, unless_after=removal))
    Feedback(journal.client, store, manifest.collection).restore()
    return Repaired(len(newest), registered, removed, documents.unreadable)


def _is_as_documented(
    present: tuple[bytes, str] | None, result: ActivationResult, manifest: Manifest, translation: Translation
) -> bool:
    """Whether an entry, if any, is that of a document. Of one with a code of a former codec, the segments hold a better
    code than can be made from it."""
    if present is None or present[1] != meta_text(named(result.meta, result.name)):
        return False
    former = result.codec not in (None, manifest.codec)
    if former and entry_order(result.journal_entry) <= entry_order(manifest.journal_entry):
        return True
    return present[0] == translation.read(*code_in(result, manifest)).tobytes()


def _align(journal: Journal, manifest: Manifest) -> None:
    """Make the journal's state agree with the current generation, and announce that to the workers."""
    announced = journal.announced()
    whole = announced.generation and entry_order(announced.cut) <= entry_order(manifest.journal_entry)
    # What was cut off after the segments' last entry cannot be read any more: forget it, to register it again.
    gone = max(manifest.journal_entry, announced.cut, key=entry_order)
    journal.announce(manifest.generation, announced.cut if whole else manifest.journal_entry, covered=gone)


def _current_entries(
    files: CollectionStore,
    manifest: Manifest,
    codec: Codec,
    journal: Journal,
    wanted: AnyCollection[str],
    translation: Translation,
) -> dict[str, tuple[bytes, str]]:
    """Codes and metadata (see :func:`meta_text`) of some assets by segments and journal; assets that are not registered
    are missing."""
    present: dict[str, tuple[bytes, str]] = {}
    for segment in open_segments(files, manifest, codec):
        found = segment.find(wanted)
        for i, code in zip(found.tolist(), segment.codes_at(found), strict=True):
            present[segment.assets[i]] = (code.tobytes(), segment.metas[i])
    for change in journal.all_after(manifest.journal_entry, translation):
        if change.code is None:
            present.pop(change.asset_id, None)
        else:
            present[change.asset_id] = (change.code.tobytes(), meta_text(change.meta))
    return present
