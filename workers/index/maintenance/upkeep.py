"""Upkeep of a collection: removal, compaction, rollback, deletion. Each can be repeated after an interruption: a new
generation becomes current by one write, after all its files are stored."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

import numpy as np

from tasks.assets import records
from tasks.errors import Conflict
from workers.index.codec.codec import Codec, Codes
from workers.index.collection.collection import journal_incomplete, open_segments
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Change, Journal, entry_order
from workers.index.collection.manifest import Manifest, SegmentFiles
from workers.index.collection.pinned import current_manifest, publish
from workers.index.collection.segment import Segment, SegmentPaths, meta_text, write_segment
from workers.index.collection.workspace import workspace

__all__ = ["CheckLock", "compact", "delete", "recalibrated", "remove", "rollback", "separated"]

_REFERENCE: Final = re.compile(r"reference-\d{5}")

# Called right before a generation is published; raises CollectionBusy when the collection's lock was lost.
CheckLock = Callable[[], None]


def remove(files: CollectionStore, journal: Journal, asset_id: str) -> str:
    """Remove an asset from a collection; see :func:`tasks.assets.records.remove`."""
    return records.remove(journal, files.assets, files.removals, asset_id)


def compact(files: CollectionStore, journal: Journal, check_lock: CheckLock) -> Manifest:
    """Merge segments and journal into one new segment and publish it as the next generation; returns its manifest, or
    the current one when the journal holds nothing new.

    Raises:
        CollectionBusy: the lock was lost; nothing was published.
        CorruptSegment: a file of the collection is damaged, or its journal incomplete; the current generation stays.
        DiskUnavailable: the local disk is full.
    """
    manifest = current_manifest(files, journal)
    _finish(files, journal, manifest, check_lock)
    if entry_order(journal.announced().cut) > entry_order(manifest.journal_entry):
        raise journal_incomplete(manifest.collection)
    code_size = Codec.read(files.fetch(manifest.codec), manifest.factory).code_size
    changes = {change.asset_id: change for change in journal.all_after(manifest.journal_entry, code_size)}
    if not changes:
        return manifest
    last = max((change.entry for change in changes.values()), key=entry_order)
    following = next_generation(files, manifest, segments=_merged(files, manifest, changes), journal_entry=last)
    _publish(files, journal, following, check_lock)
    return following


def rollback(files: CollectionStore, journal: Journal, number: int, check_lock: CheckLock) -> Manifest:
    """Publish the files of a kept generation as a new generation; the journal's later changes apply to it too, so
    nothing that was registered is lost.

    Raises:
        NotFound: that generation is not kept.
        Conflict: the journal does not reach back to it, because Redis was emptied since.
        CollectionBusy, CorruptSegment: as in :func:`compact`.
    """
    manifest, old = current_manifest(files, journal), files.generation(number)
    if not journal.announced().generation:
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
    following = next_generation(files, manifest, segments=segments, journal_entry=old.journal_entry)
    _publish(files, journal, following, check_lock)
    return following


def recalibrated(
    files: CollectionStore, journal: Journal, changed: Mapping[str, Any], check_lock: CheckLock
) -> Manifest:
    """Publish the current generation with other facts about it, such as its calibration, as the next one."""
    manifest = current_manifest(files, journal)
    _finish(files, journal, manifest, check_lock)
    same = next_generation(files, manifest, segments=manifest.segments, journal_entry=manifest.journal_entry)
    following = same.model_copy(update=dict(changed))
    _publish(files, journal, following, check_lock)
    return following


def delete(files: CollectionStore, journal: Journal, check_lock: CheckLock) -> None:
    """Delete a collection: its pointer first, then its files and its journal. Workers that have it open close it within
    a minute. Originals, protected images and result documents stay."""
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


def _publish(files: CollectionStore, journal: Journal, manifest: Manifest, check_lock: CheckLock) -> None:
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


def _merged(files: CollectionStore, manifest: Manifest, changes: Mapping[str, Change]) -> list[SegmentFiles]:
    """One segment of all assets, and those of the distractors as they are."""
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    opened = zip(manifest.segments, open_segments(files, manifest, codec), strict=True)
    segments = [segment for part, segment in opened if not part.distractors]
    added = [change for change in changes.values() if change.code is not None]
    merged = _written(files, codec, segments, lambda asset: asset not in changes, added)
    return [merged, *(part for part in manifest.segments if part.distractors)]


def separated(files: CollectionStore, manifest: Manifest) -> list[SegmentFiles]:
    """The segments of a starter collection of version 0.1.0, which did not tell its reference images from assets: one
    of assets, one of distractors."""
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    segments = open_segments(files, manifest, codec)
    assets = _written(files, codec, segments, lambda asset: not _REFERENCE.fullmatch(asset), [])
    references = _written(files, codec, segments, lambda asset: bool(_REFERENCE.fullmatch(asset)), [])
    return [assets, references.model_copy(update={"distractors": True})]


def _written(
    files: CollectionStore, codec: Codec, segments: list[Segment], keep: Callable[[str], bool], added: list[Change]
) -> SegmentFiles:
    """One segment of the entries whose assets are kept, and of the added ones."""
    kept = [np.array([keep(asset) for asset in s.assets], dtype=bool) for s in segments]
    codes = [s.codes[chosen] for s, chosen in zip(segments, kept, strict=True)]
    codes.append(_stacked(codec, added))

    def texts(table: Callable[[Segment], Iterable[str]], new: Callable[[Change], str]) -> Iterator[str]:
        old = (_chosen(table(s), chosen) for s, chosen in zip(segments, kept, strict=True))
        return chain(chain.from_iterable(old), map(new, added))

    with workspace(files) as folder:
        paths = SegmentPaths.below(folder)
        write_segment(
            codec,
            np.concatenate(codes),
            texts(lambda s: s.assets, lambda change: change.asset_id),
            texts(lambda s: s.metas, lambda change: meta_text(change.meta)),
            paths,
        )
        return files.upload_segment(paths)


def _stacked(codec: Codec, added: list[Change]) -> Codes:
    codes = [change.code for change in added if change.code is not None]
    return np.stack(codes) if codes else np.empty((0, codec.code_size), dtype=np.uint8)


def _chosen(texts: Iterable[str], keep: np.ndarray) -> Iterator[str]:
    return (text for text, kept in zip(texts, keep.tolist(), strict=True) if kept)
