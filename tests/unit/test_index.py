"""Codec, segment, asset table and delta."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.errors import CorruptSegment, InvalidRequest
from workers.index.assets import AssetTable
from workers.index.codec import Codec, Features
from workers.index.delta import Delta
from workers.index.segment import Segment, write_segment

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
    index, assets = tmp_path / "index", tmp_path / "assets"
    write_segment(codec, codec.encode(features[:500]), [f"asset-{i}" for i in range(500)], index, assets)
    return Segment(index, assets)


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
    delta.add("it", codes[0])
    assert delta.search(codec.decode(codes)[0], 1, 1)[0][0] == "it"


def test_too_few_features_are_refused_with_the_reason(features: Features) -> None:
    with pytest.raises(InvalidRequest, match="IVF4096"):
        Codec.train("IVF4096,PQ4x4", features[:10])


def test_a_written_codec_gives_the_same_codes(codec: Codec, features: Features, tmp_path: Path) -> None:
    codec.write(tmp_path / "codec")
    assert (Codec.read(tmp_path / "codec", codec.factory).encode(features) == codec.encode(features)).all()


def test_a_mapped_segment_finds_what_was_written(segment: Segment, codec: Codec, features: Features) -> None:
    target = codec.decode(codec.encode(features[7:8]))[0]
    assert segment.search(target, 3, 16)[0] == ("asset-7", pytest.approx(0, abs=1e-5))
    assert len(segment) == 500


def test_a_damaged_asset_table_is_refused(segment: Segment, tmp_path: Path) -> None:
    data = (tmp_path / "assets").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-3])
    (tmp_path / "other").write_bytes(b"X" + data[1:])
    for name in ("cut", "other"):
        with pytest.raises(CorruptSegment, match=name):
            AssetTable(tmp_path / name)


def test_an_asset_added_twice_answers_once_under_its_last_code(codec: Codec, features: Features) -> None:
    delta = Delta(codec)
    first, second = codec.encode(features[:2])
    delta.add("a", first)
    delta.add("a", second)
    hits = delta.search(codec.decode(second[None])[0], 5, 16)
    assert hits == [("a", pytest.approx(0, abs=1e-5))]
    assert len(delta) == 1


def test_a_removed_asset_is_not_found_and_masks_older_segments(codec: Codec, features: Features) -> None:
    delta = Delta(codec)
    code = codec.encode(features[:1])[0]
    delta.add("a", code)
    delta.remove("a")
    assert delta.search(features[0], 5, 16) == []
    assert "a" in delta.masked
