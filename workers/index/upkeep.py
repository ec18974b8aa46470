"""Upkeep of a collection: removal, compaction, rollback, repair. Each is done again without harm when it was
interrupted: a new generation is put in force by one write, after all its files are there."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Collection as AnyCollection
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from tasks.errors import DiskUnavailable
from tasks.storage import ObjectStore
from workers.index.codec import Codec, Codes
from workers.index.collection import open_segments
from workers.index.documents import newest_activations
from workers.index.journal import BEGINNING, Change, Journal, decode_code, entry_order
from workers.index.manifest import CollectionStore, Manifest, SegmentFiles
from workers.index.segment import Segment, SegmentPaths, meta_text, write_segment

__all__ = ["Repaired", "compact", "remove", "repair", "rollback"]


def remove(files: CollectionStore, journal: Journal, asset_id: str) -> str:
    """Take an asset out of a collection, for the very next query on any worker; returns the journal's entry."""
    entry = journal.remove(asset_id)
    files.note_removal(asset_id, entry)
    return entry


def compact(files: CollectionStore, journal: Journal) -> Manifest:
    """Write segments and journal into one new segment and put it in force as the next generation; returns that, or the
    generation in force when the journal says nothing new.

    Raises:
        CorruptSegment: a file of the collection is damaged; the generation in force stays.
        DiskUnavailable: there is no room for the new files here.
    """
    manifest = files.current()
    changes = {change.asset_id: change for change in journal.all_after(manifest.journal_entry)}
    if not changes:
        return manifest
    last = max((change.entry for change in changes.values()), key=entry_order)
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    with _room(files) as folder:
        paths = SegmentPaths.below(folder)
        _merge(codec, open_segments(files, manifest), changes, paths)
        segment = files.upload_segment(paths)
    following = next_generation(files, manifest, segments=[segment], journal_entry=last)
    _put_in_force(files, journal, following, list(changes.values()))
    return following


def rollback(files: CollectionStore, journal: Journal, number: int) -> Manifest:
    """Put the files of a kept generation in force again, as a new generation; what the journal says since then applies
    to it as well, so nothing that was registered is lost.

    Raises:
        NotFound: that generation is not kept.
    """
    old = files.generation(number)
    following = next_generation(files, files.current(), segments=old.segments, journal_entry=old.journal_entry)
    _put_in_force(files, journal, following, [])
    return following


@dataclass(frozen=True)
class Repaired:
    """What a repair found: assets with a result document; how many were registered again, and how many removed."""

    assets: int
    registered: int
    removed: int


def repair(store: ObjectStore, files: CollectionStore, journal: Journal, progress: Callable[[int], None]) -> Repaired:
    """Register and remove again what S3 knows and neither the segments nor the journal do: after Redis was emptied.

    An asset counts as its newest result document says, or as its removal does when that came later.
    """
    manifest = files.current()
    newest, removals = newest_activations(store, manifest, progress), files.removals()
    present = _present(files, manifest, journal, {*newest, *removals})
    registered = removed = 0
    for asset_id in {*newest, *removals}:
        result, removal = newest.get(asset_id), removals.get(asset_id, BEGINNING)
        if result and entry_order(result.journal_entry) > entry_order(removal):
            code = decode_code(result.code)
            if present.get(asset_id) != code.tobytes():
                journal.add(asset_id, code, result.meta)
                registered += 1
        elif asset_id in present:
            journal.remove(asset_id)
            removed += 1
    return Repaired(len(newest), registered, removed)


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


def _put_in_force(files: CollectionStore, journal: Journal, manifest: Manifest, covered: list[Change]) -> None:
    """Publish, tell the workers, and keep of the journal what the kept generations need."""
    files.publish(manifest)
    needed = min((kept.journal_entry for kept in files.retire()), key=entry_order)
    journal.announce(manifest.generation, needed, covered)


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


@contextmanager
def _room(files: CollectionStore) -> Iterator[Path]:
    """An empty folder for new files. It always has the same name: what a compaction that was killed left there goes."""
    folder = files.workspace
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    except (OSError, RuntimeError) as error:  # FAISS says with a RuntimeError that there was no room
        raise DiskUnavailable(f"{folder} cannot take a segment's files ({error}): make room.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _present(
    files: CollectionStore, manifest: Manifest, journal: Journal, wanted: AnyCollection[str]
) -> dict[str, bytes]:
    """The codes under which wanted assets stand now, by segments and journal."""
    present: dict[str, bytes] = {}
    for segment in open_segments(files, manifest):
        codes = segment.codes
        present |= {a: codes[i].tobytes() for i, a in enumerate(segment.assets) if a in wanted}
    for change in journal.all_after(manifest.journal_entry):
        if change.code is None:
            present.pop(change.asset_id, None)
        else:
            present[change.asset_id] = change.code.tobytes()
    return present
