"""Codec, segment, asset table and delta."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from tasks.errors import CorruptSegment, InvalidRequest
from workers.index.coarse import Cells
from workers.index.codec import Codec, Codes, Features
from workers.index.delta import Delta
from workers.index.journal import Change
from workers.index.segment import Segment, SegmentPaths, write_segment
from workers.index.tables import TextTable

FACTORIES = ["Flat", "IVF16,Flat", "IVF16,PQ4x4", "PQ4x4", "OPQ4_8,PQ4x4", "PCA8,LSH"]


@pytest.fixture(scope="module")
def features() -> Features:
    values = np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def codec(features: Features) -> Codec:
    return Codec.train("IVF16,PQ4x4", features)


@pytest.fixture
def segment(codec: Codec, features: Features, tmp_path: Path) -> Segment:
    paths = SegmentPaths.below(tmp_path)
    metas = (f'{{"number": "{i}"}}' if i % 2 else "" for i in range(500))
    write_segment(codec, codec.encode(features[:500]), (f"asset-{i}" for i in range(500)), metas, paths)
    return Segment(paths, codec)


def added(asset_id: str, code: Codes) -> Change:
    return Change("1-0", asset_id, code, {})


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_code_survives_decoding_and_encoding(features: Features, factory: str) -> None:
    codec = Codec.train(factory, features)
    codes = codec.encode(features[:50])
    assert codes.shape == (50, codec.code_size)
    assert np.mean(codec.encode(codec.decode(codes)) == codes) > 0.9  # a reconstruction may lie beyond its cell


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_index_of_any_family_finds_an_entry_by_its_own_reconstruction(features: Features, factory: str) -> None:
    codec = Codec.train(factory, features)
    codes = codec.encode(features[:1])
    delta = Delta(codec)
    delta.apply([added("it", codes[0])])
    (hit,) = delta.search(codec.probe(codec.decode(codes)[0], 1), 1, {})
    assert hit
    assert hit.asset_id == "it"


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_codes_of_a_mapped_segment_are_those_that_were_written(
    features: Features, factory: str, tmp_path: Path
) -> None:
    codec, paths = Codec.train(factory, features), SegmentPaths.below(tmp_path)
    codes = codec.encode(features[:300])
    write_segment(codec, codes, map(str, range(300)), ("" for _ in range(300)), paths)
    assert (Segment(paths, codec).codes == codes).all()


def test_many_cells_are_searched_in_two_stages_with_the_result_of_one() -> None:
    random = np.random.default_rng(1)
    centroids = random.standard_normal((4096, 256), dtype=np.float32) / 16
    quantiser = faiss.IndexFlatL2(256)
    quantiser.add(centroids)
    cells = Cells(quantiser)
    for centroid, noise in zip(centroids, random.standard_normal((100, 256), dtype=np.float32) / 16, strict=False):
        feature = (centroid + noise)[None] / np.sqrt(2)
        distances, numbers = quantiser.search(feature, 1)
        assert cells.nearest(feature, 1) == (pytest.approx(distances, rel=1e-4), numbers)
        assert set(cells.nearest(feature, 100)[1][0]) == set(quantiser.search(feature, 100)[1][0])


def test_too_few_features_are_refused_with_the_reason(features: Features) -> None:
    with pytest.raises(InvalidRequest, match="IVF4096"):
        Codec.train("IVF4096,PQ4x4", features[:10])


def test_a_written_codec_gives_the_same_codes(codec: Codec, features: Features, tmp_path: Path) -> None:
    codec.write(tmp_path / "codec")
    assert (Codec.read(tmp_path / "codec", codec.factory).encode(features) == codec.encode(features)).all()


def test_a_mapped_segment_finds_what_was_written(segment: Segment, codec: Codec, features: Features) -> None:
    target = codec.decode(codec.encode(features[7:8]))[0]
    first = next(segment.search(codec.probe(target, 16), 3, {}))
    assert (first.asset_id, first.distance) == ("asset-7", pytest.approx(0, abs=1e-5))
    assert first.meta == {"number": "7"}
    assert len(segment) == 500


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
    (hit,) = filter(None, delta.search(codec.probe(codec.decode(second[None])[0], 16), 5, {}))
    assert (hit.asset_id, hit.distance) == ("a", pytest.approx(0, abs=1e-5))


def test_a_removed_asset_is_not_found_and_masks_older_segments(codec: Codec, features: Features) -> None:
    delta = Delta(codec)
    code = codec.encode(features[:1])[0]
    delta.apply([added("a", code), Change("2-0", "a", None, {})])
    assert not any(delta.search(codec.probe(features[0], 16), 5, {}))
    assert delta.overrules("a", delta.changes)
    assert not delta.overrules("a", 0)
    assert not delta.overrules("b", delta.changes)
