"""A host has its shard's part of the inverted lists only, and answers with the others as one that has all of them."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import CorruptSegment, ShardUnavailable
from tasks.names import journal_stream
from tasks.settings import Settings
from tasks.shards import Shard
from tasks.storage import Bucket, ObjectStore
from tests.collections import EXTRACTOR, Place, add, code_of, found, trained_codec, unit_vectors
from tests.faults.test_damaged_collection import flipped, truncated
from tests.integration.test_shards import PATIENT_S, answering, same
from tests.integration.test_tiers import NEW, grown, in_order
from tests.moto_server import moto_server
from workers.index.codec.codec import Codec
from workers.index.codec.list_blocks import header_bytes
from workers.index.collection.collection import Collection
from workers.index.collection.files import CollectionStore, prune
from workers.index.collection.manifest import Manifest
from workers.index.collection.open_collections import OpenCollections
from workers.index.collection.pinned import publish
from workers.index.maintenance import upkeep
from workers.index.maintenance.continuity import Continuity
from workers.index.maintenance.verify import verify_collection
from workers.index.shards.asking import ShardPeers

QUERIES = unit_vectors(12, 5)
LEAST = "workers.index.collection.files._LEAST_DIVIDED"


@pytest.fixture(autouse=True)
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the lists are."""
    monkeypatch.setattr(LEAST, 0)


class Counting(ObjectStore):
    """Counts the bytes that are read of each object."""

    read: Counter[str]

    def stream(self, bucket: Bucket, key: str, max_bytes: int | None) -> Iterator[bytes]:
        yield from self._counted(key, super().stream(bucket, key, max_bytes))

    def stream_range(self, bucket: Bucket, key: str, start: int, end: int) -> Iterator[bytes]:
        yield from self._counted(key, super().stream_range(bucket, key, start, end))

    def _counted(self, key: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.read[key.rpartition("/")[2]] += len(chunk)
            yield chunk


def host(place: Place, shard: Shard, wait_s: float = PATIENT_S) -> tuple[OpenCollections, Counter[str]]:
    """A worker of a shard on a machine of its own, and the bytes that it reads of each object."""
    store = Counting.connect(place.settings)
    store.read = Counter()
    peers = ShardPeers(place.redis, shard, wait_s)
    return OpenCollections(store, place.redis, cache_of(place, shard), EXTRACTOR, peers), store.read


def cache_of(place: Place, shard: Shard) -> Path:
    return place.cache.with_name(f"cache-{shard.number}-{shard.count}")


@contextmanager
def hosts(place: Place, count: int) -> Iterator[list[Collection]]:
    """The collection on so many hosts, all of which answer."""
    with ExitStack() as running:
        opened = []
        for shard in Shard(1, count).all:
            collections, _ = host(place, shard)
            opened.append(collections.get(place.name))
            running.enter_context(answering(place, shard, collections))
        yield opened


def lists_of(place: Place, shard: Shard) -> Path:
    """The local file of the first segment's lists."""
    return cache_of(place, shard) / place.files.current().segments[0].copies(shard)[0]


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Iterator[Place]:
    """A place on a server that answers ranges as S3 does; its log is `moto.log`."""
    with moto_server(tmp_path) as address:
        place = Place("divided", settings.model_copy(update={"s3_endpoint": address}), tmp_path / "cache")
        place.store.ensure_buckets()
        yield place
        place.close()


def test_a_shard_of_four_downloads_a_quarter_of_the_lists_and_every_table(elsewhere: Place, tmp_path: Path) -> None:
    place, codec, features = elsewhere, trained_codec(), unit_vectors(20_000, 3)
    manifest = place.publish(codec, [str(i) for i in range(20_000)], codec.encode(features))
    (segment,) = manifest.segments
    whole = place.store.size(Bucket.COLLECTIONS, f"{place.name}/objects/{segment.index}")
    fetched = []
    for shard in Shard(1, 4).all:
        collections, read = host(place, shard)
        collections.get(place.name)
        fetched.append(read[segment.index])
        assert read[segment.assets] == place.store.size(Bucket.COLLECTIONS, f"{place.name}/objects/{segment.assets}")
        assert lists_of(place, shard).stat().st_size <= read[segment.index]
    heads = 4 * header_bytes(codec.cells)
    assert whole <= sum(fetched) <= whole + heads
    assert max(fetched) < 0.35 * whole  # cells are not all of a size
    answers = re.findall(rf'GET [^"]*{segment.index} [^"]*" (\d+)', (tmp_path / "moto.log").read_text())
    assert answers == ["206"] * 8  # header and lists, four times: nothing else went over the wire


@pytest.mark.parametrize("count", [2, 3, 4])
def test_hosts_answer_as_plain_faiss_after_compactions_and_merges(
    place: Place, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hosts(place, count) as opened:
        for rounds in (1, 4, 8):
            monkeypatch.setattr(LEAST, 0 if rounds != 4 else 1 << 30)  # some segments lack blocks, as earlier ones do
            grown(place, rounds)
            agrees_with_faiss(place, opened)
        place.compact(whole=True)
        assert all(segment.blocks for segment in place.files.current().segments)
        agrees_with_faiss(place, opened)


def agrees_with_faiss(place: Place, opened: list[Collection]) -> None:
    alone = place.open()
    for collection in opened:
        collection.follow()
    names, codes = in_order(alone)
    plain = alone.codec.filled(codes)
    for n, nprobe in enumerate((1, 4, 16)):
        plain.nprobe = nprobe
        distances, _ = plain.search(QUERIES, 30)
        answers = opened[n % len(opened)].search_many(QUERIES, 30, nprobe)
        for answer, expected, one in zip(answers, distances, alone.search_many(QUERIES, 30, nprobe), strict=True):
            assert [match.distance for match in answer.matches] == pytest.approx(
                expected[expected < 1e9].tolist(), abs=1e-5
            )
            assert {match.asset_id for match in answer.matches} <= set(names)
            assert same(answer, one)
            assert answer.evidence.unsearched == 0
    of_round = opened[0].search_many(QUERIES, 30, 16, {"round": "0"})
    assert all(map(same, of_round, alone.search_many(QUERIES, 30, 16, {"round": "0"})))


@pytest.mark.parametrize("damage", [flipped, truncated])
def test_a_damaged_range_is_refused_and_fetched_again_when_it_is_whole(place: Place, damage: object) -> None:
    segment, shards = place.files.current().segments[0], Shard(1, 4).all
    key = f"{place.name}/objects/{segment.index}"
    data = place.store.get(Bucket.COLLECTIONS, key, 1 << 30)
    place.store.put(Bucket.COLLECTIONS, key, damage(data), "application/octet-stream")  # type: ignore[operator]
    opened = {shard: host(place, shard)[0] for shard in shards}
    refused = {shard: error for shard, error in ((s, refusal(c, place)) for s, c in opened.items()) if error}
    assert len(refused) == (1 if damage is flipped else 4)  # the bytes of other shards are as they were
    for shard, error in refused.items():
        assert (error.code, segment.index in error.message) == ("corrupt_segment", True)
        assert not lists_of(place, shard).exists()
    place.store.put(Bucket.COLLECTIONS, key, data, "application/octet-stream")
    for shard, collections in opened.items():
        assert refusal(collections, place) is None
        assert lists_of(place, shard).exists()


def refusal(collections: OpenCollections, place: Place) -> CorruptSegment | None:
    try:
        collections.get(place.name)
    except CorruptSegment as error:
        return error
    return None


@pytest.mark.parametrize("data", [b"", b"ilar", b"\0" * 6_000])
def test_an_object_that_is_no_file_of_lists_is_refused(place: Place, data: bytes) -> None:
    segment = place.files.current().segments[0]
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/objects/{segment.index}", data, "application/octet-stream")
    with pytest.raises(CorruptSegment, match=segment.index):
        host(place, Shard(2, 4))[0].get(place.name)
    place.store.delete(Bucket.COLLECTIONS, f"{place.name}/objects/{segment.index}")
    with pytest.raises(CorruptSegment, match=segment.index):
        host(place, Shard(2, 4))[0].get(place.name)


def test_a_damaged_part_in_the_cache_is_fetched_again(place: Place) -> None:
    shard = Shard(2, 4)
    host(place, shard)[0].get(place.name)
    path = lists_of(place, shard)
    data = path.read_bytes()
    path.write_bytes(flipped(data))
    collections, read = host(place, shard)
    collections.get(place.name)
    assert path.read_bytes() == data
    collections, read = host(place, shard)
    collections.get(place.name)
    assert not read  # it was there, and right


def test_blocks_that_are_not_those_of_the_file_are_refused_by_shards_and_by_verification(place: Place) -> None:
    manifest = place.files.current()
    blocks = manifest.segments[0].blocks
    assert blocks
    wrong = blocks.model_copy(update={"digests": [*blocks.digests[1:], blocks.digests[0]]})
    segments = [manifest.segments[0].model_copy(update={"blocks": wrong})]
    publish(
        place.files, place.journal,
        upkeep.next_generation(place.files, manifest, segments=segments, journal_entry=manifest.journal_entry),
    )  # fmt: skip
    with pytest.raises(CorruptSegment, match="do not have their digests"):
        host(place, Shard(2, 4))[0].get(place.name)
    with pytest.raises(CorruptSegment, match="other blocks"):
        verify_collection(place.files, place.journal, place.open(), sample=10)


def test_a_manifest_of_an_earlier_version_is_read_and_its_lists_are_fetched_whole(place: Place) -> None:
    text = json.loads(place.files.current().model_dump_json())
    for segment in text["segments"]:
        del segment["blocks"]
    publish(place.files, place.journal, Manifest.model_validate(text | {"generation": 2}))
    shard = Shard(2, 4)
    collection = host(place, shard)[0].get(place.name)
    assert lists_of(place, shard).name == place.files.current().segments[0].index
    assert collection.segments[0].index.ntotal == 500


def test_a_code_in_a_cell_of_another_shard_is_asked_for(place: Place) -> None:
    alone = place.open()
    add(alone, "young", NEW[0])
    place.compact()
    alone.follow()
    with hosts(place, 4) as opened:
        for asset in ("old-3", "old-4", "old-499", "young"):
            expected = alone.entry_of(asset)
            assert expected
            for collection in opened:
                entry = collection.entry_of(asset)
                assert entry
                assert (entry.code == expected.code).all()
        assert opened[0].entry_of("none") is None
        add(alone, "in the journal", NEW[1])
        opened[0].search(QUERIES[0], 5)
        entry = opened[0].entry_of("in the journal")
        assert entry
        assert (entry.code == code_of(alone, NEW[1])).all()


def test_a_code_is_not_made_up_where_its_shard_is_away(place: Place) -> None:
    collections, _ = host(place, Shard(1, 4), wait_s=0.2)
    collection = collections.get(place.name)
    cells = place.open().codec.cells_of(place.open().segments[0].codes)
    mine, others = (f"old-{np.flatnonzero(where)[0]}" for where in (cells < 4, cells >= 4))
    assert collection.entry_of(mine)
    with pytest.raises(ShardUnavailable, match="aii status"):
        collection.entry_of(others)
    assert collection.holds(others)


def test_one_machine_may_have_several_shards_and_change_them(place: Place) -> None:
    for shard in (*Shard(1, 2).all, *Shard(1, 4).all, Shard(1, 1)):
        peers = ShardPeers(place.redis, shard, 0.2)
        collection = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR, peers).get(place.name)
        assert list(np.flatnonzero(collection.segments[0].lists.sizes)) == [
            cell for cell in shard.cells(16) if place.open().segments[0].lists.sizes[cell]
        ]


def test_a_host_fetches_its_part_of_a_new_generation_and_lets_go_of_the_old_one(place: Place) -> None:
    shard = Shard(2, 4)
    collections, read = host(place, shard)
    collection = collections.get(place.name)
    old = lists_of(place, shard)
    read.clear()
    add(place.open(), "new-0", NEW[0])
    place.compact()
    assert collection.follow()
    segments = place.files.current().segments
    assert segments[0].index not in read  # it is open, and stays
    assert old.exists()
    place.compact(whole=True)
    assert collection.follow()
    assert not old.exists()
    whole = place.store.size(Bucket.COLLECTIONS, f"{place.name}/objects/{place.files.current().segments[0].index}")
    assert read[place.files.current().segments[0].index] < 0.5 * whole
    assert lists_of(place, shard).exists()


def test_a_part_that_is_open_is_not_cleared_away(place: Place) -> None:
    shard = Shard(2, 4)
    collections, _ = host(place, shard)
    collection = collections.get(place.name)
    path = lists_of(place, shard)
    os.utime(path, (time.time() - 8 * 86_400,) * 2)
    add(place.open(), "new-0", NEW[0])
    place.compact()
    collection.follow()
    prune(cache_of(place, shard))
    assert path.exists()


def test_a_compaction_reads_no_lists_but_those_it_merges(place: Place, tmp_path: Path) -> None:
    add(place.open(), "new-0", NEW[0])
    store = Counting.connect(place.settings)
    store.read = Counter()
    large = place.files.current().segments[0]
    files = CollectionStore(store, place.name, tmp_path / "another machine's cache")
    upkeep.compact(files, place.journal, lambda: None)
    assert large.index not in store.read
    assert store.read[large.lookup or ""] > 0
    add(place.open(), "old-1", NEW[1])
    upkeep.compact(files, place.journal, lambda: None, whole=True)
    assert large.index in store.read
    assert found(place.open(), NEW[1], k=1) == ["old-1"]


def test_a_whole_compaction_gives_blocks_to_a_single_segment_without_and_is_no_new_generation_afterwards(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LEAST, 1 << 30)
    codec = trained_codec()
    place.publish(codec, [f"old-{i}" for i in range(500)], codec.encode(unit_vectors(500, 0)))
    assert place.compact(whole=True).segments[0].blocks is None  # its lists are small
    monkeypatch.setattr(LEAST, 0)
    before = place.files.current().generation
    assert place.compact().generation == before
    manifest = place.compact(whole=True)
    assert (manifest.generation, [bool(part.blocks) for part in manifest.segments]) == (before + 1, [True])
    assert place.compact(whole=True).generation == before + 1
    with hosts(place, 2) as opened:
        agrees_with_faiss(place, opened)


def test_a_whole_compaction_leaves_distractors_and_an_index_without_cells_as_they_are(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LEAST, 1 << 30)
    flat = Place(f"{place.name}-flat", place.settings, place.cache)
    codec = Codec.train("PQ4x4", unit_vectors(500, 0))
    flat.publish(codec, ["a", "b"], codec.encode(unit_vectors(2, 0)))
    manifest = place.publish(trained_codec(), ["a"], trained_codec().encode(unit_vectors(1, 0)))
    (segment,) = manifest.segments
    (assets,) = place.publish(trained_codec(), ["b"], trained_codec().encode(unit_vectors(1, 1))).segments
    monkeypatch.setattr(LEAST, 0)
    both = [assets.model_copy(update={"blocks": None}), segment.model_copy(update={"distractors": True})]
    current = place.files.current()
    publish(
        place.files, place.journal,
        upkeep.next_generation(place.files, current, segments=both, journal_entry=current.journal_entry),
    )  # fmt: skip
    assert [bool(part.blocks) for part in place.compact(whole=True).segments] == [True, False]
    assert flat.compact(whole=True).generation == 1


def test_a_code_is_had_without_waiting_for_shards_that_do_not_have_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    collection = host(place, Shard(1, 4))[0].get(place.name)
    cells = place.open().codec.cells_of(place.open().segments[0].codes)
    asset = f"old-{np.flatnonzero((cells >= 4) & (cells < 8))[0]}"
    shard = Shard(2, 4)
    with answering(place, shard, host(place, shard)[0]):
        assert collection.entry_of(asset)
    assert "No answer" not in caplog.text  # of shards 3 and 4, which are away


def test_a_shards_worker_notices_a_loss_and_leaves_the_look_an_hour_later_to_workers_without_a_shard(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("collection.settling", "maintenance.continuity"):
        monkeypatch.setattr(f"workers.index.{module}.GRACE_MS", 0)
    collections, read = host(place, Shard(1, 4))
    collection, segment = collections.get(place.name), place.files.current().segments[0]
    of_shard = Continuity(collections, place.redis, place.store, looks_later=False)
    of_shard.keep(collection)
    part = read[segment.index]
    place.redis.hset(f"{journal_stream(place.name)}:state", "server", "the one before")
    assert [of_shard.keep(collection) for _ in range(3)] == [None] * 3
    assert read[segment.index] == part
    whole = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)
    assert Continuity(whole, place.redis, place.store).keep(whole.get(place.name))
    place.redis.delete(*place.redis.scan_iter(f"{journal_stream(place.name)}*"))
    assert of_shard.keep(collection)


def test_small_lists_have_no_blocks_and_are_fetched_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST, 1 << 20)
    codec = trained_codec()
    for count, divides in ((1_000, False), (100_000, True)):
        manifest = place.publish(codec, [str(i) for i in range(count)], codec.encode(unit_vectors(count, 4)))
        assert (manifest.segments[0].part_of(Shard(1, 4)) is not None) == divides
