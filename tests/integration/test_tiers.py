"""A collection of many segments: it answers as one of a single segment, and an addition leaves the large ones alone."""

from __future__ import annotations

import random
from pathlib import Path

import faiss
import numpy as np
import pytest

from tasks.errors import CollectionBusy, CorruptSegment
from tests.collections import Place, add, anyway, code_of, found, trained_codec, unit_vectors
from tests.forked import forkserver
from workers.index.codec.codec import Codes, Features
from workers.index.collection.collection import Collection
from workers.index.collection.manifest import SegmentFiles
from workers.index.collection.pinned import publish
from workers.index.collection.segments import open_segments
from workers.index.maintenance import upkeep
from workers.index.maintenance.listing import assets, which_registered
from workers.index.maintenance.tiers import MOST_OF_A_TIER
from workers.index.maintenance.verify import verify_collection

NEW = unit_vectors(400, 1)


def grown(place: Place, segments: int) -> dict[str, Features]:
    """Compact after every few changes, replacements and removals among them; returns what the collection holds now."""
    collection = place.open()
    held = dict(zip([f"old-{i}" for i in range(500)], unit_vectors(500, 0), strict=True))
    for n in range(segments):
        changed = {f"new-{n}-{i}": NEW[4 * n + i] for i in range(4)}
        changed |= {f"old-{7 * n}": NEW[4 * n], f"new-{n - 1}-0": NEW[4 * n + 1]}  # of which some have equal codes
        for asset, feature in changed.items():
            add(collection, asset, feature, round=str(n))
        held |= changed
        for asset in (f"old-{7 * n + 1}", f"new-{n - 1}-1"):
            place.remove(asset)
            held.pop(asset, None)
        place.compact()
    return held


def in_order(collection: Collection) -> tuple[list[str], Codes]:
    """The current entries of all segments, one behind the other."""
    names = [s.assets[p] for s in collection.segments for p in np.flatnonzero(s.current).tolist()]
    return names, np.concatenate([s.codes[s.current] for s in collection.segments])


@pytest.mark.parametrize("segments", [1, 5, 12])
def test_many_segments_answer_as_plain_faiss_does_over_the_same_codes(place: Place, segments: int) -> None:
    held = grown(place, segments)
    collection = place.open()
    names, codes = in_order(collection)
    assert sorted(names) == sorted(held)
    assert len(collection.segments) == (1 + segments if segments < 8 else 2 + segments - 8)
    plain = collection.codec.filled(codes)
    for nprobe in (1, 4, 16):
        plain.nprobe = nprobe
        for query in unit_vectors(40, 5):
            distances, positions = plain.search(query[None], 600)
            expected = [names[p] for p in positions[0] if p >= 0]
            matches = collection.search(query, 600, nprobe).matches
            assert [match.distance for match in matches] == pytest.approx(distances[0][: len(expected)], abs=1e-5)
            assert [match.asset_id for match in matches] == expected  # also where codes are equal
            few = collection.search(query, 5, nprobe).matches
            assert [match.distance for match in few] == [match.distance for match in matches[:5]]


def test_what_is_hidden_does_not_come_back_when_references_are_told_from_assets(place: Place) -> None:
    held = grown(place, 3)
    for i in range(5):
        add(place.open(), f"reference-0000{i}", NEW[i])
    place.compact()
    place.remove("reference-00004")
    place.compact()
    manifest = place.files.current()
    made, distractors = upkeep.separated(place.files, manifest)
    codec = place.open().codec
    names, references = (list(s.assets) for s in open_segments(
        place.files, manifest.model_copy(update={"segments": [made, distractors]}), codec
    ))  # fmt: skip
    assert sorted(names) == sorted(held)
    assert sorted(references) == [f"reference-0000{i}" for i in range(4)]


def test_each_asset_is_listed_found_and_counted_once(place: Place) -> None:
    held = grown(place, 12)
    collection = place.open()
    assert len(collection) == place.files.current().assets == len(held)
    assert sorted(asset.asset_id for asset in assets(place.files, place.journal)) == sorted(held)
    assert which_registered(place.files, place.journal, {*held, "old-1", "none"}) == set(held)
    entry = collection.entry_of("old-14")
    assert entry is not None
    assert (entry.code == code_of(collection, held["old-14"])).all()
    assert collection.entry_of("old-1") is None
    assert verify_collection(place.files, place.journal, collection, sample=600).share == 1
    narrowed = found(collection, NEW[0], k=100, round="11")
    assert sorted(narrowed) == sorted([*(f"new-11-{i}" for i in range(4)), "old-77", "new-10-0"])


def test_an_addition_neither_writes_nor_fetches_the_large_segment_again(place: Place, tmp_path: Path) -> None:
    elsewhere = Place(place.name, place.settings, tmp_path / "another machine's cache")
    collection = elsewhere.open()
    large = collection.segments[0]
    before = place.files.current()
    add(collection, "new-0", NEW[0])
    after = place.compact()
    assert (after.segments[0].name, after.segments[0].hidden) == (before.segments[0].name, [])
    fetched = set(elsewhere.cache.iterdir())
    assert collection.follow()
    assert {path.name for path in set(elsewhere.cache.iterdir()) - fetched} == after.segments[1].digests
    assert collection.segments[0].index is large.index
    elsewhere.close()


def test_nothing_is_left_of_what_was_removed_after_a_whole_compaction(place: Place) -> None:
    collection = place.open()
    add(collection, "secret-name", NEW[0])
    place.compact()
    place.remove("secret-name")
    held = place.compact()
    assert [part.superseded for part in held.segments] == [0, 0]  # the small one was rewritten at once
    place.remove("old-3")
    assert [part.superseded for part in place.compact().segments] == [1, 0]
    whole = place.compact(whole=True)
    assert [(part.count, part.superseded) for part in whole.segments] == [(499, 0)]
    assert place.compact(whole=True) == whole
    tables = [place.files.fetch(part.assets).read_bytes() for part in whole.segments]
    assert not any(b"secret-name" in table or b"old-3\0" in table for table in tables)


def test_a_rollback_brings_back_what_was_hidden_and_applies_the_journal_again(place: Place) -> None:
    collection = place.open()
    add(collection, "old-3", NEW[0])
    place.remove("old-4")
    place.compact()
    manifest = place.rollback(1)
    assert (manifest.assets, manifest.segments[0].hidden) == (500, [])
    again = place.open()
    assert found(again, NEW[0], k=1) == ["old-3"]
    assert "old-4" not in found(again, NEW[0], k=1_000)
    assert place.compact().assets == 499


def test_an_asset_that_changes_often_leaves_few_files_behind(place: Place) -> None:
    collection = place.open()
    for i in range(20):
        place.remove(f"old-{i}")
        manifest = place.compact()
    assert len(manifest.segments[0].hidden) <= 9
    assert (manifest.assets, manifest.segments[0].superseded) == (480, 20)
    assert collection.follow()
    assert len(found(collection, NEW[0], k=1_000)) == 480


def test_a_manifest_that_counts_other_entries_than_its_files_hold_is_told(place: Place) -> None:
    add(place.open(), "old-3", NEW[0])
    manifest = place.compact()
    assert verify_collection(place.files, place.journal, place.open(), sample=10).entries == 500
    large, small = manifest.segments
    for wrong in ({"count": 500}, {"superseded": 0}, {"hidden": []}):
        segments = [large.model_copy(update=wrong), small]
        numbered = upkeep.next_generation(
            place.files, manifest, segments=segments, journal_entry=manifest.journal_entry
        )
        publish(place.files, place.journal, numbered)
        with pytest.raises(CorruptSegment, match="its manifest says"):
            verify_collection(place.files, place.journal, place.open(), sample=10)


def in_old_form(place: Place) -> None:
    """Publish the collection's entries as version 0.1.0 did: a whole FAISS index, and no lookup."""
    files, manifest = place.files, place.files.current()
    path = place.cache / "whole"
    faiss.write_index(trained_codec().filled(place.open().segments[0].codes), str(path))
    old = manifest.segments[0].model_dump(include={"assets", "meta", "count"}) | {"index": files.upload(path)}
    segments = [SegmentFiles.model_validate(old)]
    publish(
        files,
        place.journal,
        upkeep.next_generation(files, manifest, segments=segments, journal_entry=manifest.journal_entry),
    )


def test_a_collection_in_the_form_of_version_0_1_0_answers_and_grows(place: Place) -> None:
    before = found(place.open(), NEW[9], k=20)
    in_old_form(place)
    collection = place.open()
    assert found(collection, NEW[9], k=20) == before
    held = grown(place, 3)
    assert sorted(found(place.open(), NEW[0], k=1_000)) == sorted(held)
    assert place.files.current().assets == len(held)
    assert len(place.compact(whole=True).segments) == 1
    assert sorted(found(place.open(), NEW[0], k=1_000)) == sorted(held)


def compact_in_a_process(*place: object) -> None:
    Place(*place).compact()  # type: ignore[arg-type]


def test_a_merge_that_is_killed_at_any_moment_loses_and_doubles_nothing(place: Place) -> None:
    writer, held = place.open(), {f"old-{i}" for i in range(500)}
    moments = random.Random(0)
    killed = 0
    while killed < 20:
        parts = place.files.current().segments
        if len(parts) <= MOST_OF_A_TIER:  # no merge yet
            add(writer, f"new-{len(held)}", NEW[killed])
            held.add(f"new-{len(held)}")
            place.compact()
            continue
        add(writer, "moved", NEW[200 + killed])
        held.add("moved")
        process = forkserver().Process(target=compact_in_a_process, args=(place.name, place.settings, place.cache))
        process.start()
        process.join(moments.uniform(0.0, 0.6))
        process.kill()
        process.join()
        killed += 1
        reader = place.open()
        everything = found(reader, NEW[0], k=2_000)
        assert sorted(everything) == sorted(held)
        assert found(reader, NEW[199 + killed], k=1) == ["moved"]
    assert place.compact().assets == len(held)


def test_a_merge_that_lost_its_lock_publishes_nothing(place: Place) -> None:
    collection = place.open()
    for i in range(MOST_OF_A_TIER + 1):
        add(collection, f"new-{i}", NEW[i])
        if i < MOST_OF_A_TIER:
            place.compact()

    def lost() -> None:
        raise CollectionBusy("another process may write")

    before = place.files.current()
    with pytest.raises(CollectionBusy):
        upkeep.compact(place.files, place.journal, lost)
    assert place.files.current() == before
    merged = upkeep.compact(place.files, place.journal, anyway)
    assert [part.count for part in merged.segments] == [500, MOST_OF_A_TIER + 1]
    assert place.open().manifest == merged
