"""A collection that is trained again: nothing is lost, whichever codec a change was made with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import CollectionBusy
from tasks.ledger.dead_letters import DeadLetters
from tests.collections import Place, add, anyway, found, unit_vectors
from tests.forked import forkserver
from workers.index.codec.codec import Codec, Features
from workers.index.collection.collection import Collection
from workers.index.collection.manifest import Manifest
from workers.index.maintenance.retrain import Current, Originals, advice, switch, train
from workers.index.maintenance.upkeep import CheckLock
from workers.index.maintenance.verify import verify_collection

OLD, NEW = unit_vectors(500, 0), unit_vectors(400, 1)
KNOWN = {f"old-{i}": feature for i, feature in enumerate(OLD)}
# One whose codes are as long as those before, and one whose are not.
FACTORIES = ["IVF16,PQ4x8", "IVF16,PQ8x8"]


def retrained(
    place: Place, factory: str, check_lock: CheckLock = anyway, known: Mapping[str, Features] = KNOWN
) -> Manifest:
    current = Current.open(place.files, place.files.current())
    features, _ = current.write_features(place.cache / "features", known)
    return switch(place.files, place.journal, current, train(place.files, current, features, factory), check_lock)


def first(collection: Collection, features: Features) -> list[str]:
    return [found(collection, feature, k=1)[0] for feature in features]


def own_codec(place: Place) -> Codec:
    manifest = place.files.current()
    return Codec.read(place.files.fetch(manifest.codec), manifest.factory)


def test_an_asset_that_got_another_image_while_originals_were_extracted_keeps_that_one(place: Place) -> None:
    extracted = Originals(KNOWN, dict.fromkeys(KNOWN, "former"), [])
    place.activated("old-0", place.open().codec.encode(NEW[5:6])[0])
    place.compact()
    retrained(place, "IVF16,PQ8x8", known=extracted.still_of([("old-0", "another"), ("old-1", "former")]))
    assert first(place.open(), np.stack([NEW[5], OLD[1], OLD[2]])) == ["old-0", "old-1", "old-2"]
    assert place.repair().registered == 0


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_collection_that_is_trained_again_answers_as_plain_faiss_with_the_new_codec(
    place: Place, factory: str
) -> None:
    working = place.open()
    add(working, "kept", NEW[0], colour="red")
    place.remove("old-3")
    place.compact()
    place.remove("old-4")  # in the journal still
    manifest = retrained(place, factory)
    assert working.follow()
    codec = own_codec(place)
    names = [f"old-{i}" for i in range(500) if i != 3]
    plain = codec.filled(codec.encode(np.stack([KNOWN[name] for name in names])))
    plain.nprobe = 16
    for query in unit_vectors(20, 7):
        distances, positions = plain.search(query[None], 10)
        expected = {names[p]: d for p, d in zip(positions[0], distances[0], strict=True)}
        expected.pop("old-4", None)
        matches = [match for match in working.search(query, 12, 16).matches if match.asset_id != "kept"]
        assert {match.asset_id: match.distance for match in matches[: len(expected)]} == pytest.approx(
            expected, abs=1e-5
        )
    assert found(working, NEW[0], k=1, colour="red") == ["kept"]
    assert (manifest.factory, manifest.assets) == (factory, 500)
    assert verify_collection(place.files, place.journal, working, sample=100).share > 0.9


@pytest.mark.parametrize("factory", FACTORIES)
def test_changes_made_with_either_codec_are_found_before_and_after_a_rollback(place: Place, factory: str) -> None:
    late, other = place.open(), place.open()
    before = place.files.current().generation
    retrained(place, factory)
    add(late, "by-the-former-codec", NEW[0])  # its worker has not heard of the new one
    new = place.open()
    add(new, "by-the-new-codec", NEW[1])
    place.remove("old-9")
    for collection in (new, other, late):  # the last two have the former generation
        assert first(collection, NEW[:2]) == ["by-the-former-codec", "by-the-new-codec"]
        assert collection.manifest.factory == factory
    place.compact()
    assert first(place.open(), NEW[:2]) == ["by-the-former-codec", "by-the-new-codec"]
    add(new, "in-the-journal", NEW[2])
    back = place.rollback(before)
    assert (back.factory, back.calibration) == ("IVF16,PQ8x4", None)
    names = ["by-the-former-codec", "by-the-new-codec", "in-the-journal"]
    for collection in (place.open(), new, new):  # at first it answers from the generation before
        assert first(collection, NEW[:3]) == names
        assert not {"old-9"} & set(found(collection, OLD[9], k=1_000))
        collection.follow()
        assert collection.manifest == back
    assert place.compact().assets == 502
    assert first(place.open(), NEW[:3]) == names
    assert retrained(place, factory).assets == 502
    assert not list(DeadLetters(place.redis).newest(10))


def test_a_change_that_names_no_known_codec_is_set_aside_and_others_are_served(place: Place) -> None:
    retrained(place, FACTORIES[0])
    collection = place.open()
    code = collection.codec.encode(NEW[:1])[0]
    place.journal.add("odd", code, {}, codec="f" * 16)
    add(collection, "next", NEW[1])
    assert found(collection, NEW[1], k=1) == ["next"]
    assert not collection.holds("odd")


def test_documents_of_either_codec_are_registered_again_and_the_new_codes_stay(place: Place) -> None:
    old = place.open()
    entries = {"old-1": add(old, "old-1", OLD[1]), "former": add(old, "former", NEW[0])}
    for asset, feature in (("old-1", OLD[1]), ("former", NEW[0])):
        place.document(asset, old.codec.encode(feature[None])[0], entries[asset])
    place.compact()
    retrained(place, FACTORIES[1])
    code = own_codec(place).encode(NEW[1:2])[0]
    entry = add(place.open(), "newer", NEW[1])
    place.document("newer", code, entry)
    assert place.repair().registered == 0
    place.redis.flushdb()
    assert place.repair().registered == 1
    assert first(place.open(), NEW[:2]) == ["former", "newer"]


def test_a_lost_lock_leaves_the_present_codec(place: Place) -> None:
    def lost() -> None:
        raise CollectionBusy("lost")

    before = place.files.current()
    with pytest.raises(CollectionBusy):
        retrained(place, FACTORIES[0], lost)
    assert place.files.current() == before


def retrain_in_a_process(*place: object) -> None:
    retrained(Place(*place), FACTORIES[0])  # type: ignore[arg-type]


def test_a_retraining_that_is_killed_at_any_moment_leaves_one_codec_or_the_other_and_every_asset(place: Place) -> None:
    moments, writer, names = random.Random(0), place.open(), []
    for i in range(5):
        process = forkserver().Process(target=retrain_in_a_process, args=(place.name, place.settings, place.cache))
        process.start()
        names.append(f"meanwhile-{i}")
        add(writer, names[-1], NEW[i])
        process.join(moments.uniform(0.0, 1.0))
        process.kill()
        process.join()
        reader = place.open()
        assert first(reader, NEW[: i + 1]) == names
        assert sorted(found(reader, NEW[0], k=2_000)) == sorted([*KNOWN, *names])
    retrained(place, FACTORIES[0])
    assert place.compact().assets == 505


def test_images_without_an_original_keep_what_their_codes_say(place: Place, tmp_path: Path) -> None:
    current = Current.open(place.files, place.files.current())
    features, lost = current.write_features(tmp_path / "features", {"old-2": OLD[2]})
    assert lost == 499
    assert np.allclose(features[2], OLD[2])
    assert np.allclose(features[3], current.codec.decode(current.codec.encode(OLD[3:4]))[0])


def test_a_collection_that_has_outgrown_its_cells_is_told(place: Place) -> None:
    current = Current.open(place.files, place.files.current())
    assert not advice(current)
    grown = current.manifest.segments[0].model_copy(update={"count": 10_000_000})
    manifest = current.manifest.model_copy(update={"segments": [grown]})
    (reason,) = advice(Current(manifest, current.codec, current.segments))
    assert "625,000 in each of 16 cells" in reason
