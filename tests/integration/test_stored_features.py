"""A collection that keeps features beside its codes: what was registered with one has it in every segment after."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.documents import write_result
from tasks.errors import CorruptSegment
from tasks.settings import Settings
from tests.collections import EXTRACTOR, Place, anyway, code_of, found, made_activation, trained_codec, unit_vectors
from workers.index.codec.stored import FeatureFormat, FeatureType
from workers.index.collection.changes import encode_code
from workers.index.collection.collection import Collection
from workers.index.collection.feature_table import map_features
from workers.index.collection.lock import write_lock
from workers.index.maintenance.build import NewCollection, publish_first
from workers.index.maintenance.retrain import Current, advice, switch, train
from workers.index.maintenance.transfer import export_collection, import_collection

OLD, NEW = unit_vectors(300, 0), unit_vectors(100, 1)
INT8 = FeatureFormat("int8", EXTRACTOR.dimension)


@pytest.fixture
def kept(settings: Settings, tmp_path: Path) -> Iterator[Place]:
    place = Place(f"stored-{uuid.uuid4().hex[:12]}", settings, tmp_path / "cache")
    new = NewCollection(place.name, trained_codec(), EXTRACTOR, 0.5, 0.01, features="int8")
    names = [f"old-{i}" for i in range(len(OLD))]
    publish_first(place.files, place.journal, new, names, new.codec.encode(OLD), anyway, OLD)
    yield place
    place.close()


def add(collection: Collection, asset_id: str, number: int) -> str:
    return collection.register(asset_id, code_of(collection, NEW[number]), {}, NEW[number])


def stored(collection: Collection) -> dict[str, bytes]:
    """Of each asset in a segment, its stored feature."""
    return {
        segment.assets[position]: segment.stored[position].tobytes()
        for segment in collection.segments
        for position in np.flatnonzero(segment.current).tolist()
    }


def expected(*, removed: str, added: range) -> dict[str, bytes]:
    rows = {f"old-{i}": row.tobytes() for i, row in enumerate(INT8.encode(OLD)) if f"old-{i}" != removed}
    return rows | {f"new-{i}": row.tobytes() for i, row in enumerate(INT8.encode(NEW)) if i in added}


def test_features_stay_with_their_assets_through_compaction_merging_and_removal(kept: Place) -> None:
    collection = kept.open()
    for i in range(8):
        add(collection, f"new-{i}", i)
    kept.remove("old-3")
    kept.compact()
    collection.follow()
    assert stored(collection) == expected(removed="old-3", added=range(8))
    kept.compact(whole=True)
    collection.follow()
    assert len(collection.segments) == 1
    assert stored(collection) == expected(removed="old-3", added=range(8))


def test_an_asset_registered_without_a_feature_has_its_codes_reconstruction(kept: Place) -> None:
    collection = kept.open()
    code = code_of(collection, NEW[0])
    kept.journal.add("new-0", code, {})
    kept.compact()
    collection.follow()
    assert stored(collection)["new-0"] == INT8.encode(collection.codec.decode(code[None]))[0].tobytes()


def test_features_return_with_a_repair_and_a_rollback(kept: Place) -> None:
    collection = kept.open()
    entry = add(collection, "new-0", 0)
    row = collection.stored(NEW[0])
    assert row is not None
    result = made_activation(
        kept.name, collection.manifest.codec, "new-0", code_of(collection, NEW[0]), entry, {}
    ).model_copy(update={"feature": encode_code(row)})
    write_result(kept.store, result.job_id, result)
    kept.redis.flushall()
    assert kept.repair().registered == 1
    kept.compact()
    collection.follow()
    assert stored(collection)["new-0"] == row.tobytes()
    kept.rollback(1)
    kept.compact()
    collection.follow()
    assert stored(collection)["new-0"] == row.tobytes()


def test_features_go_along_into_an_export(kept: Place, tmp_path: Path) -> None:
    add(kept.open(), "new-0", 0)
    manifest = kept.compact()
    export_collection(kept.store, kept.files, manifest, tmp_path / "file.tar", images=False)
    kept.files.delete_all()
    kept.journal.delete()
    with write_lock(kept.redis, kept.name) as lock:
        imported = import_collection(kept.store, kept.files, kept.journal, tmp_path / "file.tar", lock)
    assert imported.features == "int8"
    assert stored(kept.open()) == expected(removed="", added=range(1))


def test_a_damaged_table_of_features_is_noticed(kept: Place, tmp_path: Path) -> None:
    (part,) = kept.files.current().segments
    assert part.features is not None
    whole = kept.files.fetch(part.features).read_bytes()
    for damaged in (b"", whole[:-1], b"x" + whole[1:]):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(CorruptSegment, match="holds no features of 300 entries"):
            map_features(tmp_path / "damaged", 300)


def test_a_collection_without_features_stores_none(place: Place) -> None:
    collection = place.open()
    collection.register("new-0", code_of(collection, NEW[0]), {}, NEW[0])
    (change,) = place.journal.all_after(collection.manifest.journal_entry)
    assert change.feature is None
    assert all(part.features is None for part in place.compact().segments)
    assert found(collection, NEW[0], k=1) == ["new-0"]


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_stored_feature_hardly_moves_a_distance(kind: FeatureType) -> None:
    features = np.random.default_rng(0).standard_normal((50, 512)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    stored = FeatureFormat(kind, 512)
    rows = stored.encode(features)
    assert rows.shape == (50, stored.row_bytes)
    exact, moved = (((f[:1] - features[1:]) ** 2).sum(axis=1) for f in (features, stored.decode(rows)))
    assert np.abs(exact - moved).max() < 0.01


def test_a_collection_that_keeps_features_is_trained_again_from_them_and_keeps_them(
    kept: Place, tmp_path: Path
) -> None:
    collection = kept.open()
    for i in range(3):
        add(collection, f"new-{i}", i)
    kept.remove("old-3")
    kept.compact()
    current = Current.open(kept.files, kept.files.current())
    features, lost = current.write_features(tmp_path / "features", {})
    assert (features.shape, lost) == ((302, EXTRACTOR.dimension), 0)
    manifest = switch(kept.files, kept.journal, current, train(kept.files, current, features, "IVF16,PQ4x8"), anyway)
    assert (manifest.features, manifest.factory) == ("int8", "IVF16,PQ4x8")
    add(collection, "new-3", 3)  # with the former codec
    assert found(kept.open(), NEW[3], k=1) == ["new-3"]
    kept.compact()
    assert stored(kept.open()) == expected(removed="old-3", added=range(4))


def test_newer_images_that_are_far_from_their_codes_are_a_reason_to_train_again(kept: Place) -> None:
    collection = kept.open()
    for i in range(100):
        add(collection, f"new-{i}", i)
    kept.compact()
    assert not advice(Current.open(kept.files, kept.files.current()))
    for i in range(100):
        collection.register(f"other-{i}", code_of(collection, 3 * NEW[i]), {}, 3 * NEW[i])
    kept.compact()
    (reason,) = advice(Current.open(kept.files, kept.files.current()))
    assert "times as far from their codes" in reason
