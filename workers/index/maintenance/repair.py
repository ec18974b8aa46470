"""Repair: what S3 knows of a collection's assets is said again where Redis was emptied."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection as AnyCollection
from dataclasses import dataclass

from tasks.storage import ObjectStore
from workers.index.codec.codec import Codec
from workers.index.collection.collection import open_segments
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import BEGINNING, Journal, decode_code, entry_order
from workers.index.collection.manifest import Manifest
from workers.index.collection.segment import meta_text
from workers.index.maintenance.documents import newest_activations

__all__ = ["Repaired", "repair"]


@dataclass(frozen=True)
class Repaired:
    """What a repair found: assets with a result document, how many were registered again and how many removed, and
    result documents that could not be read."""

    assets: int
    registered: int
    removed: int
    unreadable: int


def repair(
    store: ObjectStore, files: CollectionStore, journal: Journal, progress: Callable[[int, int], None]
) -> Repaired:
    """Register and remove again what S3 knows and neither the segments nor the journal do: after Redis was emptied, or
    an older state of S3 or Redis was brought back.

    An asset counts as its newest result document says, or as its removal does when that came later; and where the
    journal speaks of it after both, it stays as it is.
    """
    manifest = files.current()
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    found = newest_activations(store, manifest, codec.code_size, progress)
    newest, removals = found.newest, files.removals.entries()
    known = [manifest.journal_entry, *(result.journal_entry for result in newest.values()), *removals.values()]
    journal.go_on_after(max(known, key=entry_order))
    _begin_where_the_segments_end(manifest, journal)
    present = _present(files, manifest, codec, journal, {*newest, *removals})
    registered = removed = 0
    for asset_id in {*newest, *removals}:
        result, removal = newest.get(asset_id), removals.get(asset_id, BEGINNING)
        if result and entry_order(result.journal_entry) > entry_order(removal):
            code = decode_code(result.code)
            if present.get(asset_id) != (code.tobytes(), meta_text(result.meta)):
                registered += bool(journal.add(asset_id, code, result.meta, unless_after=result.journal_entry))
        elif asset_id in present:
            removed += bool(journal.remove(asset_id, unless_after=removal))
    return Repaired(len(newest), registered, removed, found.unreadable)


def _begin_where_the_segments_end(manifest: Manifest, journal: Journal) -> None:
    """Make the journal's own notes agree with the generation in force, and tell the workers of that."""
    announced = journal.announced()
    whole = announced.generation and entry_order(announced.cut) <= entry_order(manifest.journal_entry)
    # Of what was cut off beyond the segments, nothing is left to be read: it is to be said again.
    gone = max(manifest.journal_entry, announced.cut, key=entry_order)
    journal.announce(manifest.generation, announced.cut if whole else manifest.journal_entry, covered=gone)


def _present(
    files: CollectionStore, manifest: Manifest, codec: Codec, journal: Journal, wanted: AnyCollection[str]
) -> dict[str, tuple[bytes, str]]:
    """The codes and metadata (see :func:`meta_text`) under which wanted assets stand now, by segments and journal."""
    present: dict[str, tuple[bytes, str]] = {}
    for segment in open_segments(files, manifest, codec):
        codes = segment.codes
        present |= {a: (codes[i].tobytes(), segment.metas[i]) for i, a in enumerate(segment.assets) if a in wanted}
    for change in journal.all_after(manifest.journal_entry):
        if change.code is None:
            present.pop(change.asset_id, None)
        else:
            present[change.asset_id] = (change.code.tobytes(), meta_text(change.meta))
    return present
