"""Upkeep of a collection: removal, compaction, rollback, deletion. Each is done again without harm when it was
interrupted: a new generation is put in force by one write, after all its files are there."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Collection as AnyCollection
from itertools import chain

import numpy as np

from tasks.errors import Conflict
from workers.index.codec.codec import Codec, Codes
from workers.index.collection.collection import journal_was_cut, open_segments
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Change, Journal, entry_order, following
from workers.index.collection.manifest import Manifest, SegmentFiles
from workers.index.collection.segment import Segment, SegmentPaths, meta_text, write_segment
from workers.index.collection.text_table import TextTable
from workers.index.collection.workspace import workspace

__all__ = ["StillOurs", "compact", "delete", "remove", "rollback", "standing"]

# Asked right before a generation is published; raises when the right to do so was lost.
StillOurs = Callable[[], None]


def remove(files: CollectionStore, journal: Journal, asset_id: str) -> str:
    """Take an asset out of a collection, for the very next query on any worker; returns the journal's entry.

    It is noted in S3 before and after: a removal that was answered, or only begun, outlives Redis.
    """
    files.removals.note(asset_id, following(journal.last_entry()))
    entry = journal.remove(asset_id)
    files.removals.note(asset_id, entry)
    return entry


def standing(files: CollectionStore, journal: Journal, wanted: AnyCollection[str]) -> set[str]:
    """Those of some assets that stand in a collection now."""
    manifest = files.current()
    tables = [TextTable(files.fetch(part.assets)) for part in manifest.segments]
    found = {asset for asset in wanted if any(asset in table for table in tables)}
    for change in journal.all_after(manifest.journal_entry):
        if change.asset_id in wanted:
            (found.discard if change.code is None else found.add)(change.asset_id)
    return found


def compact(files: CollectionStore, journal: Journal, still_ours: StillOurs) -> Manifest:
    """Write segments and journal into one new segment and put it in force as the next generation; returns that, or the
    generation in force when the journal says nothing new.

    Raises:
        CorruptSegment: a file of the collection is damaged, or its journal incomplete; the generation in force stays.
        DiskUnavailable: there is no room for the new files here.
    """
    manifest = files.current()
    _finish(files, journal, manifest, still_ours)
    if entry_order(journal.announced().cut) > entry_order(manifest.journal_entry):
        raise journal_was_cut(manifest.collection)
    changes = {change.asset_id: change for change in journal.all_after(manifest.journal_entry)}
    if not changes:
        return manifest
    last = max((change.entry for change in changes.values()), key=entry_order)
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    with workspace(files) as folder:
        paths = SegmentPaths.below(folder)
        _merge(codec, open_segments(files, manifest, codec), changes, paths)
        segment = files.upload_segment(paths)
    following_one = next_generation(files, manifest, segments=[segment], journal_entry=last)
    _put_in_force(files, journal, following_one, still_ours)
    return following_one


def rollback(files: CollectionStore, journal: Journal, number: int, still_ours: StillOurs) -> Manifest:
    """Put the files of a kept generation in force again, as a new generation; what the journal says since then applies
    to it as well, so nothing that was registered is lost.

    Raises:
        NotFound: that generation is not kept.
        Conflict: the journal does not reach back to it, because Redis was emptied since.
        CorruptSegment: a file of it is missing or damaged.
    """
    manifest, old = files.current(), files.generation(number)
    if not journal.announced().generation:
        raise Conflict(
            f"The journal of {manifest.collection!r} is gone, and what it said with it: run "
            f"`aii index repair {manifest.collection}` first."
        )
    _finish(files, journal, manifest, still_ours)
    if entry_order(journal.announced().cut) > entry_order(old.journal_entry):
        raise Conflict(f"The journal does not reach back to generation {number}: what came after it would be lost.")
    open_segments(files, old, Codec.read(files.fetch(old.codec), old.factory))
    following_one = next_generation(files, manifest, segments=old.segments, journal_entry=old.journal_entry)
    _put_in_force(files, journal, following_one, still_ours)
    return following_one


def delete(files: CollectionStore, journal: Journal, still_ours: StillOurs) -> None:
    """Take a collection away: first that it is in force, then its files and its journal. Workers that still hold it let
    go of it within a minute. Originals, protected images and result documents stay."""
    still_ours()
    files.delete_all()
    journal.delete()


def next_generation(
    files: CollectionStore, manifest: Manifest, *, segments: list[SegmentFiles], journal_entry: str
) -> Manifest:
    """The manifest that follows all that are kept, with other segments."""
    changed = {
        "generation": max(files.newest, manifest.generation) + 1,
        "segments": segments,
        "journal_entry": journal_entry,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return manifest.model_copy(update=changed)


def _put_in_force(files: CollectionStore, journal: Journal, manifest: Manifest, still_ours: StillOurs) -> None:
    still_ours()
    files.publish(manifest)
    _finish(files, journal, manifest, still_ours)


def _finish(files: CollectionStore, journal: Journal, manifest: Manifest, still_ours: StillOurs) -> None:
    """What follows the publication of the generation in force, unless it was done: tell the workers, keep of the files
    and of the journal what the kept generations need."""
    announced = journal.announced()
    if announced.generation >= manifest.generation:
        return
    still_ours()
    needed = min((kept.journal_entry for kept in files.retire()), key=entry_order)
    # Where nothing was announced, Redis is new or was emptied: what the segments cover does not stand in it.
    there = announced.cut if announced.generation else manifest.journal_entry
    journal.announce(manifest.generation, max(there, needed, key=entry_order), manifest.journal_entry)


def _merge(codec: Codec, segments: list[Segment], changes: Mapping[str, Change], paths: SegmentPaths) -> None:
    """One segment of the entries that no change overrules, and those that were added."""
    kept = [np.array([asset not in changes for asset in s.assets], dtype=bool) for s in segments]
    added = [change for change in changes.values() if change.code is not None]
    codes = [s.codes[keep] for s, keep in zip(segments, kept, strict=True)]
    codes.append(_stacked(codec, added))

    def texts(table: Callable[[Segment], Iterable[str]], new: Callable[[Change], str]) -> Iterator[str]:
        old = (_chosen(table(s), keep) for s, keep in zip(segments, kept, strict=True))
        return chain(chain.from_iterable(old), map(new, added))

    write_segment(
        codec,
        np.concatenate(codes),
        texts(lambda s: s.assets, lambda change: change.asset_id),
        texts(lambda s: s.metas, lambda change: meta_text(change.meta)),
        paths,
    )


def _stacked(codec: Codec, added: list[Change]) -> Codes:
    codes = [change.code for change in added if change.code is not None]
    return np.stack(codes) if codes else np.empty((0, codec.code_size), dtype=np.uint8)


def _chosen(texts: Iterable[str], keep: np.ndarray) -> Iterator[str]:
    return (text for text, kept in zip(texts, keep.tolist(), strict=True) if kept)
