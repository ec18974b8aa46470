"""Upkeep of a collection: removal, compaction, rollback, deletion. Each can be repeated after an interruption: a new
generation becomes current by one write, after all its files are stored."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tasks.assets import records
from tasks.errors import Conflict
from workers.index.codec.codec import Codec, Positions, together
from workers.index.codec.stored import FeatureFormat
from workers.index.collection.collection import journal_incomplete
from workers.index.collection.feature_table import rows_of
from workers.index.collection.files import CollectionStore
from workers.index.collection.hidden import read_hidden, write_hidden
from workers.index.collection.journal import Change, Journal, entry_order
from workers.index.collection.manifest import Manifest, SegmentFiles, SettledDocuments
from workers.index.collection.pinned import current_is_damaged, current_manifest, newest_whole, publish
from workers.index.collection.segment import Entries, Segment, SegmentPaths, merge_segments, meta_text
from workers.index.collection.segments import find_in, open_segment, open_segments
from workers.index.collection.settling import Settled
from workers.index.collection.translation import Translation
from workers.index.collection.workspace import workspace
from workers.index.maintenance.recalibrate import has_doubled, remeasured
from workers.index.maintenance.tiers import to_merge

__all__ = [
    "CheckLock",
    "compact",
    "delete",
    "publish_next",
    "recalibrated",
    "remove",
    "rollback",
    "separated",
    "usual_rollback",
]

_REFERENCE: Final = re.compile(r"reference-\d{5}")
_MOST_HIDDEN_FILES: Final = 8

Mask = npt.NDArray[np.bool_]

# Called right before a generation is published; raises CollectionBusy when the collection's lock was lost.
CheckLock = Callable[[], None]


def remove(files: CollectionStore, journal: Journal, asset_id: str) -> str:
    """Remove an asset from a collection; see :func:`tasks.assets.records.remove`."""
    return records.remove(journal, files.assets, files.removals, asset_id)


def compact(
    files: CollectionStore, journal: Journal, check_lock: CheckLock, *, whole: bool = False, settle: bool = False
) -> Manifest:
    """Write the journal's changes into a new segment, merged with others where there are many of their size, and
    publish that as the next generation, calibrated again when the collection has doubled; returns its manifest, or the
    current one when there is nothing to write.

    Args:
        whole: merge all segments of assets into one, so that nothing is left of what was replaced or removed.
        settle: publish also where nothing but the documents that a repair need not read would change.

    Raises:
        CollectionBusy: the lock was lost; nothing was published.
        CorruptSegment: a file of the collection is damaged, or its journal incomplete; the current generation stays.
        DiskUnavailable: the local disk is full.
    """
    manifest = current_manifest(files, journal)
    _finish(files, journal, manifest, check_lock)
    before = journal.settling.settled()  # asked before the journal is read
    if entry_order(journal.announced().cut) > entry_order(manifest.journal_entry):
        raise journal_incomplete(manifest.collection)
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    translation = Translation(files, manifest, codec)
    changes = _changes(journal, manifest, translation)
    settled = _settled(journal, manifest, before)
    if (
        not changes
        and not (whole and _in_pieces(files, manifest, codec))
        and not (settle and settled != manifest.settled)
    ):
        return manifest
    entries = [manifest.journal_entry, *(change.entry for change in changes.values())]
    segments = _segments(files, manifest, codec, changes, whole=whole)
    following = next_generation(files, manifest, segments=segments, journal_entry=max(entries, key=entry_order))
    following = following.model_copy(update={"settled": settled})
    while changes:  # at once, they would be freed at the end, which keeps Python's lock
        changes.popitem()
    if has_doubled(following):
        following = remeasured(files, following, codec, open_segments(files, following, codec))
    publish_next(files, journal, following, check_lock)
    return following


def _changes(journal: Journal, manifest: Manifest, translation: Translation) -> dict[str, Change]:
    """The latest change of each asset since the segments were written."""
    changes, entry, whole = dict[str, Change](), manifest.journal_entry, True
    while (page := journal.read_after(entry, translation)).last:
        changes |= {change.asset_id: change for change in page.changes}
        entry, whole = page.last, whole and page.whole
    if not whole:  # the segments will not hold what was set aside: a repair has to read its document
        journal.settling.forget()
    return changes


def _settled(journal: Journal, manifest: Manifest, before: Settled | None) -> SettledDocuments | None:
    """Which documents the segments are known to hold once they have the whole journal, which was read since `before`
    was asked."""
    known, now = manifest.settled, journal.settling.settled()
    if before is None or now is None or now.server != before.server:  # Redis may have lost entries meanwhile
        return known
    found = SettledDocuments(before_ms=before.before_ms, entry=journal.last_entry())
    return known if known and known.before_ms >= found.before_ms else found


def _in_pieces(files: CollectionStore, manifest: Manifest, codec: Codec) -> bool:
    """Whether there are several segments of assets, or one with entries that are not current or without the blocks that
    it would have now."""
    parts = [part for part in manifest.segments if not part.distractors]
    return (
        len(parts) > 1
        or any(part.superseded for part in parts)
        or (codec.has_cells and any(map(files.lacks_blocks, parts)))
    )


def rollback(files: CollectionStore, journal: Journal, number: int, check_lock: CheckLock) -> Manifest:
    """Publish the files of a kept generation as a new generation; the journal's later changes apply to it too, so
    nothing that was registered is lost. Where the current manifest is damaged, the newest that can be read is taken
    for it; what a lost journal held then comes back by a repair.

    Raises:
        NotFound: that generation is not kept.
        Conflict: the journal does not reach back to it, because Redis was emptied since.
        CollectionBusy, CorruptSegment: as in :func:`compact`.
    """
    damaged = current_is_damaged(files)
    manifest = newest_whole(files, journal) if damaged else current_manifest(files, journal)
    old = files.generation(number)
    if not journal.announced().generation and not (damaged and old == manifest):
        raise Conflict(
            f"The journal of {manifest.collection!r} is gone, with what was registered last: run "
            f"`aii index repair {manifest.collection}` first."
        )
    _finish(files, journal, manifest, check_lock)
    if entry_order(journal.announced().cut) > entry_order(old.journal_entry):
        raise Conflict(f"The journal does not reach back to generation {number}: what came after it would be lost.")
    open_segments(files, old, Codec.read(files.fetch(old.codec), old.factory))
    mixed = old.calibration is None and manifest.calibration is not None
    segments = separated(files, old) if mixed else old.segments
    base = manifest
    if old.codec != manifest.codec:  # calibration and thresholds are the codec's
        base = old.model_copy(update={"codecs": manifest.codecs, "generation": manifest.generation})
    following = next_generation(files, base, segments=segments, journal_entry=old.journal_entry)
    # The journal may have a hole after the old generation, of what Redis lost once later segments held it.
    following = following.model_copy(update={"settled": None})
    journal.settling.forget()
    publish_next(files, journal, following, check_lock)
    return following


def usual_rollback(files: CollectionStore, journal: Journal) -> int:
    """The generation before the current one; where that is damaged, the newest that can be read.

    Raises:
        CollectionMissing: nothing is published under this name.
        CorruptSegment: no kept generation can be read.
    """
    if current_is_damaged(files):
        return newest_whole(files, journal).generation
    return files.pointer().generation - 1


def recalibrated(
    files: CollectionStore, journal: Journal, changed: Mapping[str, Any], check_lock: CheckLock
) -> Manifest:
    """Publish the current generation with other facts about it, such as its calibration, as the next one."""
    manifest = current_manifest(files, journal)
    _finish(files, journal, manifest, check_lock)
    same = next_generation(files, manifest, segments=manifest.segments, journal_entry=manifest.journal_entry)
    following = same.model_copy(update=dict(changed))
    publish_next(files, journal, following, check_lock)
    return following


def delete(files: CollectionStore, journal: Journal, check_lock: CheckLock) -> None:
    """Delete a collection: its pointer first, then its files and its journal. Workers that have it open close it within
    seconds. Originals, protected images and result documents stay; a job that is submitted again runs again."""
    check_lock()
    files.delete_all()
    journal.delete()


def next_generation(
    files: CollectionStore, manifest: Manifest, *, segments: list[SegmentFiles], journal_entry: str
) -> Manifest:
    """A manifest like this one with other segments, numbered after all that are kept."""
    changed = {
        "generation": max(files.newest, manifest.generation) + 1,
        "segments": segments,
        "journal_entry": journal_entry,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return manifest.model_copy(update=changed)


def publish_next(files: CollectionStore, journal: Journal, manifest: Manifest, check_lock: CheckLock) -> None:
    check_lock()
    publish(files, journal, manifest)
    _finish(files, journal, manifest, check_lock)


def _finish(files: CollectionStore, journal: Journal, manifest: Manifest, check_lock: CheckLock) -> None:
    """Finish the publication of the current generation, unless that was done: announce it to the workers, and delete
    what no kept generation needs from store and journal."""
    announced = journal.announced()
    if announced.generation >= manifest.generation:
        return
    check_lock()
    needed = min((kept.journal_entry for kept in files.retire()), key=entry_order)
    # When nothing was announced, Redis is new or was emptied: the journal lacks what the segments cover.
    cut = announced.cut if announced.generation else manifest.journal_entry
    journal.announce(manifest.generation, max(cut, needed, key=entry_order), manifest.journal_entry)


def _segments(
    files: CollectionStore, manifest: Manifest, codec: Codec, changes: Mapping[str, Change], *, whole: bool
) -> list[SegmentFiles]:
    """The segments after these changes: a new one of the added entries and of those that are merged with them, and the
    others as they are, with what the changes replace or remove hidden. Only those that are merged are read whole: a
    host may have less than all codes."""
    of_assets = [part for part in manifest.segments if not part.distractors]
    replaced = {part.name: find_in(files, part, changes) for part in of_assets}
    parts = [_counted(part, len(replaced[part.name])) for part in of_assets]
    added = [change for change in changes.values() if change.code is not None]
    merged = parts if whole else to_merge(parts, len(added))
    kept = [_hiding(files, part, replaced[part.name]) for part in parts if part not in merged]
    if merged or added:
        sources = []
        for part in merged:
            segment = open_segment(files, part, codec)
            current = segment.current
            current[replaced[part.name]] = False
            sources.append((segment, current))
        kept.append(_written(files, codec, sources, added, manifest.stored))
    return [*kept, *(part for part in manifest.segments if part.distractors)]


def _counted(part: SegmentFiles, replaced: int) -> SegmentFiles:
    """A segment of which some more entries are replaced or removed."""
    return part.model_copy(update={"count": part.count - replaced, "superseded": part.superseded + replaced})


def _hiding(files: CollectionStore, part: SegmentFiles, positions: Positions) -> SegmentFiles:
    """A segment with some more entries hidden. Its many files of hidden entries become one now and then."""
    if not len(positions):
        return part
    with workspace(files) as folder:
        path, earlier = folder / "hidden", part.hidden
        if len(earlier) >= _MOST_HIDDEN_FILES:
            positions, earlier = np.union1d(positions, read_hidden(map(files.fetch, earlier))), []
        write_hidden(path, positions)
        return part.model_copy(update={"hidden": [*earlier, files.upload(path)]})


def separated(files: CollectionStore, manifest: Manifest) -> list[SegmentFiles]:
    """The segments of a starter collection of version 0.1.0, which did not tell its reference images from assets: one
    of assets, one of distractors."""
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    segments = open_segments(files, manifest, codec)
    names = [(s, np.array([bool(_REFERENCE.fullmatch(a)) for a in s.assets], dtype=bool)) for s in segments]
    assets = _written(files, codec, [(s, ~is_reference & s.current) for s, is_reference in names], [])
    others = _written(files, codec, [(s, is_reference & s.current) for s, is_reference in names], [])
    return [assets, others.model_copy(update={"distractors": True})]


def _written(
    files: CollectionStore, codec: Codec, sources: Sequence[tuple[Segment, Mask]], added: list[Change],
    stored: FeatureFormat | None = None,
) -> SegmentFiles:  # fmt: skip
    """One segment of the entries of others that are kept, and of the added ones."""
    codes = [change.code for change in added if change.code is not None]
    new = Entries(
        together(codes) if codes else np.empty((0, codec.code_size), dtype=np.uint8),
        (change.asset_id for change in added),
        (meta_text(change.meta) for change in added),
        [rows_of(added, codec, stored)] if stored else (),
    )
    with workspace(files) as folder:
        paths = SegmentPaths.below(folder, features=stored is not None)
        merge_segments(codec, sources, new, paths)
        return files.upload_segment(paths)
