"""A collection that grows, shrinks and changes under load, on a real Redis and a real S3 server."""

from __future__ import annotations

import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.errors import CollectionBusy, NotFound
from tasks.names import sha256_hex
from tasks.settings import Settings
from tasks.shards import Shard
from tests.collections import EXTRACTOR, Place, add, code_of, found, trained_codec, unit_vectors
from workers.index.collection.checked import CheckedFiles
from workers.index.collection.collection import READ_S, Collection
from workers.index.collection.files import KEPT_GENERATIONS, CollectionStore, prune
from workers.index.collection.lock import write_lock
from workers.index.collection.manifest import SegmentFiles
from workers.index.collection.segment import SegmentPaths
from workers.index.maintenance import upkeep
from workers.index.maintenance.build import publish_first, train_collection
from workers.index.maintenance.verify import verify_collection

NEW = unit_vectors(2_000, 1)


def test_what_one_worker_registers_or_removes_the_next_query_of_another_knows(place: Place) -> None:
    one, another = place.open(), place.open()
    for i in range(50):
        add(one, f"new-{i}", NEW[i])
        assert f"new-{i}" in found(another, NEW[i])
        place.remove(f"new-{i}")
        assert f"new-{i}" not in found(another, NEW[i], k=100)


def test_an_asset_registered_anew_answers_once_under_its_last_code(place: Place) -> None:
    collection = place.open()
    add(collection, "old-7", NEW[0])
    assert found(collection, NEW[0], k=1) == ["old-7"]
    everything = found(collection, NEW[0], k=1_000)
    assert sorted(everything) == sorted(f"old-{i}" for i in range(500))
    place.compact()
    assert collection.follow()
    assert found(collection, NEW[0], k=1_000) == everything


def test_compaction_changes_the_generation_and_no_answer(place: Place) -> None:
    collection = place.open()
    for i in range(40):
        add(collection, f"new-{i}", NEW[i], kind="photo")
    place.remove("old-3")
    place.remove("new-5")
    before = [found(collection, feature, k=20) for feature in NEW[:60]]
    assert place.compact().generation == 2
    assert (place.changes(), collection.announced()) == (0, True)
    assert collection.follow()
    assert (collection.manifest.generation, len(collection)) == (2, 500 + 40 - 2)
    assert [found(collection, feature, k=20) for feature in NEW[:60]] == before
    assert found(collection, NEW[4], k=1, kind="photo") == ["new-4"]
    assert place.compact().generation == 2  # an empty journal gives no new generation


def test_a_query_can_be_narrowed_by_metadata(place: Place) -> None:
    collection = place.open()
    for i in range(20):
        add(collection, f"new-{i}", NEW[i], licence="free" if i % 2 else "paid", year="2026")
    for _ in ("in the journal", "in a segment"):
        hits = collection.search(NEW[2], 3, 16, {"licence": "free"}).matches
        assert len(hits) == 3
        assert {hit.meta["licence"] for hit in hits} == {"free"}
        assert found(collection, NEW[2], k=100, licence="paid", year="2025") == []
        place.compact()
        collection.follow()


def test_a_worker_that_follows_late_misses_nothing_of_what_was_cut_off(place: Place) -> None:
    early = place.open()
    writer = place.open()
    for i in range(KEPT_GENERATIONS + 4):
        add(writer, f"new-{i}", NEW[i])
        place.compact()
    for i in range(KEPT_GENERATIONS + 4):
        assert f"new-{i}" in found(early, NEW[i])
    kept = [manifest.generation for manifest in place.files.generations()]
    assert kept == [6, 7, 8]


def test_many_queries_at_once_on_a_worker_that_fell_behind_are_all_answered(place: Place) -> None:
    early, writer = place.open(), place.open()
    for i in range(KEPT_GENERATIONS + 2):
        add(writer, f"new-{i}", NEW[i])
        place.compact()
    together = threading.Barrier(8)

    def ask(i: int) -> list[str]:
        together.wait()
        return found(early, NEW[i % 5], k=1)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [[f"new-{i % 5}"] for i in range(8)]


def test_a_compaction_that_ended_before_it_was_announced_is_finished_by_the_next(place: Place) -> None:
    collection = place.open()
    add(collection, "new-0", NEW[0])
    asked = iter([None, CollectionBusy("the process ends here")])

    def ended() -> None:
        if error := next(asked):
            raise error

    with pytest.raises(CollectionBusy):
        upkeep.compact(place.files, place.journal, ended)
    assert (place.files.current().generation, place.journal.announced().generation) == (2, 1)
    assert place.compact().generation == 2
    assert place.journal.announced().generation == 2
    assert not place.redis.hlen(f"aii:journal:{place.name}:live")


def test_who_lost_the_right_to_write_publishes_nothing(place: Place) -> None:
    add(place.open(), "new-0", NEW[0])
    with write_lock(place.redis, place.name) as lock:
        place.redis.flushall()
        place.journal.add("new-0", trained_codec().encode(NEW[:1])[0], {})
        with pytest.raises(CollectionBusy, match="was lost"):
            upkeep.compact(place.files, place.journal, lock.check)
    assert place.files.current().generation == 1


FACTORIES = ["Flat", "IVF16,Flat", "IVF16,PQ8x8", "OPQ4_8,PQ4x8", "OPQ4_8,IVF16,PQ4x8", "PCA8,LSH", "IVF16_HNSW8,PQ4x4"]


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_collection_of_any_family_is_built_grows_is_emptied_and_grows_again(
    settings: Settings, tmp_path: Path, factory: str
) -> None:
    place = Place(f"family-{uuid.uuid4().hex[:12]}", settings, tmp_path)
    new, codes = train_collection(place.name, factory, EXTRACTOR, unit_vectors(300, 0), 0.05)
    assets = [f"old-{i}" for i in range(300)]
    publish_first(place.files, place.journal, new, assets, codes, lambda: None)
    collection = place.open()
    for generation in (2, 3):
        for i in range(3):
            add(collection, f"new-{i}", NEW[i], number=str(i))
        for _ in ("in the journal", "in a segment"):
            target = collection.codec.decode(code_of(collection, NEW[1])[None])[0]
            assert "new-1" in found(collection, target, k=10)
            assert found(collection, target, k=10, number="1") == ["new-1"]
            assert place.compact().generation == 2 * generation - 2
            collection.follow()
        for asset in [*assets, *(f"new-{i}" for i in range(3))]:
            place.journal.remove(asset)
        assert place.compact().generation == 2 * generation - 1
        collection.follow()
        assert (len(collection), found(collection, NEW[1])) == (0, [])
    place.close()


def test_a_rollback_takes_old_files_and_loses_nothing_that_was_registered_since(place: Place) -> None:
    collection = place.open()
    add(collection, "new-1", NEW[1])
    place.compact()
    add(collection, "new-2", NEW[2])
    manifest = place.rollback(1)
    assert (manifest.generation, manifest.segments) == (3, place.files.generation(1).segments)
    assert collection.follow()
    assert place.changes() == 2
    assert {"new-1", "new-2"} <= {*found(collection, NEW[1]), *found(collection, NEW[2])}
    with pytest.raises(NotFound, match="no generation 9: it keeps 1, 2, 3"):
        place.rollback(9)


def test_twenty_swaps_under_a_thousand_queries_give_no_mixed_answer_and_the_memory_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.index.collection.collection.READ_S", -1.0)  # all queries end before the last switch
    collection = place.open()
    add(collection, "new-0", NEW[0])
    done = threading.Event()

    def ask(worker: int) -> int:
        asked = 0
        while not done.is_set() or asked < 250:
            answer = collection.search(NEW[0], 600, 16)
            assets = [match.asset_id for match in answer.matches]
            assert len(assets) == len(set(assets)) >= 501
            assert assets[0] == "new-0"
            asked += 1
        return asked

    with ThreadPoolExecutor(4) as pool:
        queries = [pool.submit(ask, worker) for worker in range(4)]
        for i in range(1, 21):
            add(collection, f"new-{i}", NEW[i])
            place.compact()
            assert collection.follow()
        done.set()
        assert sum(query.result() for query in queries) >= 1_000
    assert collection.manifest.generation == 21
    collection.catch_up()
    left = {Path(line.split()[-1]).name for line in mapped(place.cache)}
    assert left <= collection.manifest.digests  # nothing of the generations before


def test_a_generation_is_let_go_when_no_query_can_use_it_any_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = place.open()
    index = collection.manifest.segments[0].index
    for number in (0, 1):
        add(collection, f"new-{number}", NEW[number])
        found(collection, NEW[number])
    place.compact(whole=True)
    collection.follow()
    collection.catch_up()
    assert any(index in line for line in mapped(place.cache))
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + READ_S)
    monkeypatch.setattr("workers.index.collection.collection.time", later)
    collection.catch_up()
    assert not any(index in line for line in mapped(place.cache))
    assert found(collection, NEW[0], k=1) == ["new-0"]


def mapped(cache: Path) -> list[str]:
    """Lines of this process' memory map that show files of a cache, deleted ones as well."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.replace(" (deleted)", "-deleted") for line in lines if str(cache) in line]


def test_ten_thousand_additions_under_a_thousand_queries_lose_and_double_nothing(place: Place) -> None:
    collection, features = place.open(), unit_vectors(10_000, 2)
    codes = collection.codec.encode(features)

    def write(start: int) -> None:
        for i in range(start, 10_000, 4):
            collection.register(f"new-{i}", codes[i], {})

    def ask(start: int) -> None:
        for i in range(start, 1_000, 2):
            assets = found(collection, features[i], k=50)
            assert len(assets) == len(set(assets)) == 50

    with ThreadPoolExecutor(6) as pool:
        tasks = [pool.submit(write, i) for i in range(4)] + [pool.submit(ask, i) for i in range(2)]
        place.compact()
        collection.follow()
        for task in tasks:
            task.result()
    everything = found(place.open(), features[0], k=20_000)
    assert sorted(everything) == sorted([*(f"old-{i}" for i in range(500)), *(f"new-{i}" for i in range(10_000))])


def test_a_journal_that_has_become_long_is_searched_with_a_table_once_the_follower_has_made_it(place: Place) -> None:
    collection = place.open()
    for i in range(trained_codec().cells):
        add(collection, f"new-{i}", NEW[i])
    before = [found(collection, feature, k=20) for feature in NEW[:20]]
    delta = collection._current.delta
    assert delta.lacks_table  # no query makes it
    collection.catch_up()
    assert not delta.lacks_table
    assert [found(collection, feature, k=20) for feature in NEW[:20]] == before
    add(collection, "newest", NEW[30])  # into the lists that it is over
    assert found(collection, NEW[30], k=1) == ["newest"]


def test_a_collection_finds_what_it_holds_and_says_so(place: Place) -> None:
    collection = place.open()
    seen = verify_collection(place.files, place.journal, collection, sample=200)
    assert (seen.files, seen.entries, seen.journal, seen.asked, seen.found_at_16) == (5, 500, 0, 200, 200)


def test_one_process_at_a_time_writes_the_next_generation(place: Place) -> None:
    with write_lock(place.redis, place.name):
        with pytest.raises(CollectionBusy, match="try again"), write_lock(place.redis, place.name):
            pass
        with write_lock(place.redis, "another-one"):
            pass
    with write_lock(place.redis, place.name):
        pass


class Forgetful(CollectionStore):
    """As if another process with the same cache took away, once, what was just fetched."""

    forgot = False

    def fetch_segment(self, files: SegmentFiles, shard: Shard | None = None) -> SegmentPaths:
        paths = super().fetch_segment(files, shard)
        if not self.forgot:
            self.forgot = True
            paths.index.unlink()
        return paths


def test_a_file_that_vanishes_between_its_check_and_its_opening_is_fetched_again(place: Place) -> None:
    files = Forgetful(place.store, place.name, place.cache)
    collection = Collection(files, place.journal, EXTRACTOR)
    assert files.forgot
    assert found(collection, unit_vectors(1, 0)[0], k=1) == ["old-0"]


def test_copies_that_are_not_used_are_deleted_after_a_week(place: Place) -> None:
    place.open()
    used = {path.name for path in place.cache.iterdir() if path.is_file()}
    for name, days in (("a" * 64, 8), (".part-old", 1)):
        (place.cache / name).write_bytes(b"x")
        os.utime(place.cache / name, (time.time() - days * 86_400,) * 2)
    (place.cache / ".part-new").write_bytes(b"x")
    place.files.reading.mkdir(parents=True)
    read = [place.files.reading / name for name in ("new.sqlite", "old.sqlite")]
    for path in read:
        path.write_bytes(b"x")
    os.utime(read[1], (time.time() - 8 * 86_400,) * 2)
    for name in used:
        os.utime(place.cache / name, (0, 0))
    place.open()
    prune(place.cache)
    assert {path.name for path in place.cache.iterdir() if path.is_file()} == used | {".part-new"}
    assert list(place.files.reading.iterdir()) == read[:1]


def test_a_copy_is_read_again_only_when_it_is_another_file_than_was_checked(tmp_path: Path) -> None:
    path, checked, long_ago = tmp_path / "copy", CheckedFiles(), time.time() - 60
    data = b"the content"
    path.write_bytes(data)
    assert checked.agrees(path, sha256_hex(data))
    path.write_bytes(b"the damaged")  # perhaps in the same tick of the file system's clock
    assert not checked.agrees(path, sha256_hex(data))
    path.write_bytes(data)
    os.utime(path, (long_ago, long_ago))
    assert checked.agrees(path, sha256_hex(data))
    assert not checked.agrees(path, sha256_hex(b"another"))
    path.write_bytes(b"the damaged")
    os.utime(path, (long_ago, long_ago))
    assert checked.agrees(path, sha256_hex(data)), "it is not read while size, time and inode are the same"
    os.utime(path, (long_ago, long_ago + 1))
    assert not checked.agrees(path, sha256_hex(data))
    os.utime(path, (long_ago, long_ago))
    other = tmp_path / "other"
    other.write_bytes(b"the damaged")
    os.utime(other, (long_ago, long_ago))
    other.replace(path)
    assert not checked.agrees(path, sha256_hex(data))
