"""Codec, segment, asset table and delta."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import pytest

from tasks.bounded_map import bounded_map
from tasks.errors import CorruptSegment, InvalidRequest
from tests.collections import EXTRACTOR, unit_vectors
from workers.activation.audit import fits_code
from workers.index.codec.coarse import Cells
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.codec.measured import best_measured, other_measured
from workers.index.codec.plan import Costs, propose, usual_cells
from workers.index.codec.stored import FeatureFormat
from workers.index.codec.trainable import check_trainable
from workers.index.collection.delta import Delta
from workers.index.collection.journal import Change
from workers.index.collection.segment import Entries, Segment, SegmentPaths, meta_text, write_segment
from workers.index.collection.segments import Segments
from workers.index.collection.text_table import TextTable, write_table
from workers.index.maintenance.build import suggested_factory, train_collection

FACTORIES = [
    "Flat",
    "IVF16,Flat",
    "IVF16,PQ4x4",
    "OPQ4_8,IVF16,PQ4x4",
    "PQ4x4",
    "OPQ4_8,PQ4x4",
    "PCA8,LSH",
    "IVF16_HNSW8,PQ4x4",
]


@pytest.fixture(scope="module")
def features() -> Features:
    return unit_vectors(2_000, 0)


@cache
def trained(factory: str) -> Codec:
    return Codec.train(factory, unit_vectors(2_000, 0))


@pytest.fixture(scope="module")
def codec(features: Features) -> Codec:
    return Codec.train("IVF16,PQ4x4", features)


@pytest.fixture
def segment(codec: Codec, features: Features, tmp_path: Path) -> Segment:
    paths = SegmentPaths.below(tmp_path)
    metas = (f'{{"number": "{i}"}}' if i % 2 else "" for i in range(500))
    write_segment(codec, Entries(codec.encode(features[:500]), (f"asset-{i}" for i in range(500)), metas), paths)
    return Segment(paths, codec)


def added(asset_id: str, code: Codes) -> Change:
    return Change("1-0", asset_id, code, {})


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_code_survives_decoding_and_encoding(features: Features, factory: str) -> None:
    codec = trained(factory)
    codes = codec.encode(features[:50])
    assert codes.shape == (50, codec.code_size)
    assert np.mean(codec.encode(codec.decode(codes)) == codes) > 0.9  # a reconstruction may lie beyond its cell


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_index_of_any_family_finds_an_entry_by_its_own_reconstruction(features: Features, factory: str) -> None:
    codec = trained(factory)
    codes = codec.encode(features[:1])
    delta = Delta(codec)
    delta.apply([added("it", codes[0])])
    ((hit,),) = delta.nearest([codec.probe(codec.decode(codes)[0], 1)], 1, {})
    assert hit
    assert hit.asset_id == "it"


@pytest.mark.parametrize("count", [300, 0])
@pytest.mark.parametrize("factory", FACTORIES)
def test_the_codes_of_a_mapped_segment_are_those_that_were_written(
    features: Features, factory: str, count: int, tmp_path: Path
) -> None:
    codec, paths = trained(factory), SegmentPaths.below(tmp_path)
    codes = codec.encode(features[:count])
    write_segment(codec, Entries(codes, map(str, range(count)), ("" for _ in range(count))), paths)
    segment = Segment(paths, codec)
    assert segment.codes.shape == (count, codec.code_size)
    assert (segment.codes == codes).all()
    if count:
        assert str(paths.index) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_search_among_those_with_some_metadata_finds_the_nearest_of_them(
    features: Features, factory: str, tmp_path: Path
) -> None:
    codec, paths = trained(factory), SegmentPaths.below(tmp_path)
    texts = [meta_text({"kind": '"a": "b"', "parity": str(i % 2)}) for i in range(300)]
    write_segment(codec, Entries(codec.encode(features[:300]), map(str, range(300)), texts), paths)
    segments, probe = Segments(codec, [Segment(paths, codec)]), codec.probe(features[7], 16)

    def found(where: Mapping[str, str]) -> list[str]:
        return [hit.asset_id for hit in segments.best(probe, 300, where)]

    nearest_odd = found({"parity": "1"})
    assert sorted(nearest_odd) == sorted(asset_id for asset_id in found({}) if int(asset_id) % 2)
    assert found({"parity": "1", "kind": '"a": "b"'})[0] == nearest_odd[0]
    assert not found({"a": "b"})
    assert not found({"parity": "1", "kind": "none"})


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_journal_shorter_or_longer_than_the_cells_are_many_gives_the_distances_of_a_segment(
    features: Features, factory: str, tmp_path: Path
) -> None:
    codec, delta, codes = trained(factory), Delta(trained(factory)), trained(factory).encode(features[:40])
    probes = codec.probes(features[40:43], 16)
    for first, end in ((0, 5), (5, 40)):
        delta.apply([added(str(number), codes[number]) for number in range(first, end)])
        assert delta.lacks_table == (codec.has_cells and end >= codec.cells)
        if delta.lacks_table:
            delta.use_table(codec.shells.empty())
        paths = SegmentPaths.below(tmp_path / str(end))
        paths.index.parent.mkdir()
        write_segment(codec, Entries(codes[:end], map(str, range(end)), ("" for _ in range(end))), paths)
        segments = Segments(codec, [Segment(paths, codec)])
        for probe, hits in zip(probes, delta.nearest(probes, end, {}), strict=True):
            expected = segments.best(probe, end, {})
            assert len(hits) == end
            assert [hit.distance for hit in hits] == pytest.approx([hit.distance for hit in expected], abs=1e-5)


def test_many_cells_are_searched_in_two_stages_with_the_result_of_one() -> None:
    random = np.random.default_rng(1)
    centroids = random.standard_normal((4096, 256), dtype=np.float32) / 16
    quantiser = faiss.IndexFlatL2(256)
    quantiser.add(centroids)
    cells = Cells(quantiser)
    features = (centroids[:100] + random.standard_normal((100, 256), dtype=np.float32) / 16) / np.float32(np.sqrt(2))
    for feature in features[:, None]:
        distances, numbers = quantiser.search(feature, 1)
        assert cells.nearest(feature, 1) == (pytest.approx(distances, rel=1e-4), numbers)
        assert set(cells.nearest(feature, 100)[1][0]) == set(quantiser.search(feature, 100)[1][0])
    distances, numbers = cells.nearest(features, 16)
    assert distances == pytest.approx(quantiser.search(features, 16)[0], rel=1e-4)
    assert ((features[:, None] - centroids[numbers]) ** 2).sum(axis=2) == pytest.approx(distances, rel=1e-4)


def test_too_few_features_are_refused_with_the_reason(features: Features) -> None:
    with pytest.raises(InvalidRequest, match="IVF4096"):
        Codec.train("IVF4096,PQ4x4", features[:10])


def test_a_written_codec_gives_the_same_codes(codec: Codec, features: Features, tmp_path: Path) -> None:
    codec.write(tmp_path / "codec")
    assert (Codec.read(tmp_path / "codec", codec.factory).encode(features) == codec.encode(features)).all()


def test_a_mapped_segment_finds_what_was_written(segment: Segment, codec: Codec, features: Features) -> None:
    target = codec.decode(codec.encode(features[7:8]))[0]
    first = Segments(codec, [segment]).best(codec.probe(target, 16), 3, {})[0]
    assert (first.asset_id, first.distance) == ("asset-7", pytest.approx(0, abs=1e-5))
    assert first.meta == {"number": "7"}
    assert len(segment) == 500


def test_a_text_is_found_that_the_end_of_the_one_before_it_seems_to_begin(tmp_path: Path) -> None:
    write_table(tmp_path / "table", ["1", "11", "111", "1111"])
    table = TextTable(tmp_path / "table")
    assert all(text in table for text in ("1", "11", "111", "1111"))
    assert "11111" not in table


def test_a_text_is_found_wherever_the_pieces_end_that_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["<" + "a" * (i % 7) + "b" * (i % 3) + ">" for i in range(100)]
    write_table(tmp_path / "table", texts)
    table = TextTable(tmp_path / "table")
    for size in (1, 2, 3, 5, 1_000):
        monkeypatch.setattr("workers.index.collection.text_table._SEARCHED", size)
        for part in ("a", "aaa", "aab", "bb", "aaaaaabb", "c"):
            assert table.containing(part).tolist() == [i for i, text in enumerate(texts) if part in text]


def test_a_table_is_read_from_any_position_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.index.collection.text_table._CHUNK", 4)
    texts = [str(i) for i in range(10)]
    write_table(tmp_path / "table", texts)
    table = TextTable(tmp_path / "table")
    assert all(list(table.beginning_at(position)) == texts[position:] for position in range(11))


def test_a_damaged_asset_table_is_refused(segment: Segment, tmp_path: Path) -> None:
    data = (tmp_path / "assets").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-3])
    (tmp_path / "other").write_bytes(b"X" + data[1:])
    for name in ("cut", "other"):
        with pytest.raises(CorruptSegment, match=name):
            TextTable(tmp_path / name)


def test_an_asset_added_twice_answers_once_under_its_last_code(codec: Codec, features: Features) -> None:
    delta = Delta(codec)
    first, second = codec.encode(features[:2])
    delta.apply([added("a", first), added("a", second)])
    ((hit,),) = delta.nearest([codec.probe(codec.decode(second[None])[0], 16)], 5, {})
    assert (hit.asset_id, hit.distance) == ("a", pytest.approx(0, abs=1e-5))


def test_entries_that_were_replaced_many_times_do_not_hide_those_behind_them(codec: Codec, features: Features) -> None:
    delta = Delta(codec)
    codes = codec.encode(features[:3])
    delta.apply([added("a", codes[0]) for _ in range(30)])
    delta.apply([added("a", codes[1]), added("b", codes[0]), added("c", codes[2])])
    probes = codec.probes(codec.decode(codes[[0, 2]]), 16)
    for asked in (probes, probes[:1], probes[1:]):
        for k in (1, 2, 3):
            found = [[hit.asset_id for hit in hits] for hits in delta.nearest(asked, k, {})]
            assert [one[0] for one in found] == ["b" if probe is probes[0] else "c" for probe in asked]
            assert [len(one) for one in found] == [k] * len(asked)


def test_a_removed_asset_is_not_found_and_masks_older_segments(codec: Codec, features: Features) -> None:
    delta = Delta(codec)
    code = codec.encode(features[:1])[0]
    delta.apply([added("a", code), Change("2-0", "a", None, {})])
    assert delta.nearest([codec.probe(features[0], 16)], 5, {}) == [[]]
    assert delta.supersedes("a", delta.changes)
    assert not delta.supersedes("a", 0)
    assert not delta.supersedes("b", delta.changes)


def test_a_collection_of_one_image_has_no_threshold(features: Features) -> None:
    new, codes = train_collection("one", "Flat", EXTRACTOR, features[:1], 0.01)
    assert (new.threshold, new.threshold_fpr, len(codes)) == (None, None, 1)


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_image_is_on_the_code_it_was_moved_to_and_off_in_another_cell(features: Features, factory: str) -> None:
    codec, original = trained(factory), features[3]
    code = codec.encode(original[None])[0]
    target = codec.decode(code[None])[0] if factory != "PCA8,LSH" else original * 1.5
    assert fits_code(codec, code, original, original + 0.5 * (target - original))
    away = next(f for f in features if not np.array_equal(codec.encode(f[None])[0], code))
    assert codec.cell_size == 0 or not fits_code(codec, code, original, -original)
    assert factory == "Flat" or not fits_code(codec, code, original, away)


@pytest.mark.parametrize("images", [100, 300, 5_000, 40_000])
@pytest.mark.parametrize("dimension", [16, 100, 101, 512])
@pytest.mark.parametrize("max_ms", [None, 0.5, 100.0])
def test_what_is_proposed_can_be_built_and_trained(images: int, dimension: int, max_ms: float | None) -> None:
    proposal = propose(images, dimension, Costs(1e-10, 1e-9, 1e-10), None, max_ms)
    check_trainable(proposal.factory, dimension, images, "images")
    index = faiss.index_factory(dimension, proposal.factory)
    assert index.sa_code_size() == proposal.code_bytes


def test_with_time_for_it_all_codes_are_compared() -> None:
    costs = Costs(1e-10, 1e-9, 1e-10)
    assert propose(1_000_000, 512, costs, None, 20.0).factory == "OPQ8_64,PQ8x8"
    assert propose(1_000_000, 512, costs, None, 2.0).factory == "PCA64,LSH"
    assert propose(1_000_000, 512, costs, None, 0.5).factory == "OPQ8_64,IVF1024,PQ8x8"
    assert propose(1_000, 512, costs, 4_096).factory == "Flat"


def test_a_plan_is_for_a_number_of_cells_and_counts_stored_features() -> None:
    one, many = (propose(1_000_000, 512, Costs(1e-10, 1e-9, 1e-10), nprobe=nprobe) for nprobe in (1, 64))
    assert (one.factory, one.nprobe, many.nprobe) == (many.factory, 1, 64)
    assert many.search_ms > one.search_ms
    assert propose(1_000, 512, Costs(1e-10, 1e-9, 1e-10), nprobe=1_000).nprobe == 16  # there are no more cells
    stored = one.with_features(1_000_000, FeatureFormat("int8", 512))
    assert (stored.feature_bytes, stored.file_bytes - one.file_bytes) == (516, 516_000_000)
    with pytest.raises(InvalidRequest, match="omit `--features`"):
        propose(100, 512, Costs(1e-10, 1e-9, 1e-10)).with_features(100, FeatureFormat("int8", 512))


def test_a_proposal_follows_what_was_measured_and_says_so() -> None:
    costs = Costs(1e-10, 1e-9, 1e-10)
    best = best_measured(10)
    assert best is not None
    assert best.recall == max(row.recall for row in (best, other_measured(best)) if row is not None)
    proposal = propose(40_000, 256, costs)
    assert proposal.factory == suggested_factory(40_000, 256)
    assert proposal.factory.startswith("OPQ") == best.rotated
    assert any(f"{best.factory} found {best.recall:.3f}" in reason for reason in proposal.reasons)
    assert best_measured(2) is None
    assert (usual_cells(0), usual_cells(40_000)) == (16, 256)


def test_more_bytes_and_more_cells_searched_find_more_of_what_was_measured() -> None:
    by_bytes = [best_measured(size) for size in (10, 14, 18, 26)]
    assert [row.recall for row in by_bytes if row] == sorted(row.recall for row in by_bytes if row)
    by_nprobe = [best_measured(10, nprobe) for nprobe in (1, 4, 16, 64)]
    assert [row.nprobe for row in by_nprobe if row] == [1, 4, 16, 16]  # of what was measured, the most that is no more
    assert [row.recall for row in by_nprobe if row] == sorted(row.recall for row in by_nprobe if row)


def test_training_a_rotation_on_few_features_writes_no_warning_for_each_iteration(
    features: Features, capfd: pytest.CaptureFixture[str]
) -> None:
    Codec.train("OPQ4_8,PQ4x4", features[:300])
    assert "".join(capfd.readouterr()).count("WARNING") <= 4  # of the four parts of the code itself


def test_work_in_threads_keeps_its_order_and_takes_little_ahead() -> None:
    taken = 0

    def things() -> Iterator[int]:
        nonlocal taken
        for number in range(1, 101):
            taken = number
            yield number

    results = bounded_map(lambda n: n * n, things(), 4)
    assert next(results) == 1
    assert taken == 8
    assert list(results) == [n * n for n in range(2, 101)]
