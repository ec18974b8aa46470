"""Verdicts of collections on a real Redis and a real S3 server: what answers say, and what later generations keep."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

from tasks.messages import QueryOptions
from tasks.names import sha256_hex
from tasks.settings import Settings
from tests.collections import EXTRACTOR, Place, add, anyway, found, trained_codec, unit_vectors
from workers.index.codec.codec import Features
from workers.index.collection.lock import write_lock
from workers.index.collection.pinned import publish
from workers.index.maintenance import starter
from workers.index.maintenance.build import NewCollection, publish_first, train_collection
from workers.index.maintenance.verify import verify_collection
from workers.index.verdicts.background import Background
from workers.index.verdicts.judge import judge
from workers.index.verdicts.score import LEFT_OUT

ASSETS, UNRELATED = unit_vectors(300, 0), unit_vectors(900, 5)


@pytest.fixture
def calibrated(settings: Settings, tmp_path: Path) -> Place:
    """300 assets, and a background of 600 images."""
    place = Place(f"verdicts-{uuid.uuid4().hex[:12]}", settings, tmp_path)
    background = Background(UNRELATED[:600], 600)
    new, codes = train_collection(place.name, "IVF8,Flat", EXTRACTOR, ASSETS, 0.05, background)
    publish_first(place.files, place.journal, new, [f"asset-{i}" for i in range(300)], codes, anyway)
    return place


def test_an_answer_names_no_distractor_and_scores_what_it_names(calibrated: Place) -> None:
    collection = calibrated.open()
    answer = collection.search(UNRELATED[0], 1_000, 8)  # a distractor itself
    assert {match.asset_id for match in answer.matches} == {f"asset-{i}" for i in range(300)}
    assert answer.evidence.nearest_distractor == pytest.approx(0, abs=1e-3)
    scores = [match.score for match in answer.matches]
    assert scores == sorted(scores)  # type: ignore[type-var]
    assert judge(answer.evidence).verdict == "no_match"
    original = collection.search(ASSETS[7], 2, 8)
    assert original.matches[0].asset_id == "asset-7"
    assert judge(original.evidence).verdict == "match"


def test_at_most_the_calibrated_share_of_unrelated_images_matches(calibrated: Place) -> None:
    collection = calibrated.open()
    for nprobe in (1, 2, 8):
        verdicts = [judge(collection.search(f, 1, nprobe).evidence).verdict for f in UNRELATED[600:]]
        assert verdicts.count("match") / len(verdicts) <= 0.08  # 5 % of 300, and chance


def test_a_query_that_does_not_say_searches_as_many_cells_as_its_collection_does(calibrated: Place) -> None:
    usual = calibrated.open()
    assert usual.settled(QueryOptions()).nprobe == 8  # 16, and there are 8
    assert usual.settled(QueryOptions(nprobe=3)).nprobe == 3
    assert usual.search(UNRELATED[0], 5).evidence.nprobe == 8
    few = calibrated.files.current().model_copy(update={"nprobe": 2, "generation": 2})
    publish(calibrated.files, calibrated.journal, few)
    assert usual.follow()
    assert usual.settled(QueryOptions()).nprobe == 2
    assert usual.search(UNRELATED[0], 5).evidence.nprobe == 2
    assert calibrated.open().settled(QueryOptions()).nprobe == 2
    # The threshold of version 0.1.0 was measured with one.
    assert few.model_copy(update={"nprobe": None, "calibration": None}).usual_nprobe == 1


def test_a_match_is_compared_with_the_same_images_however_few_cells_and_assets_are_searched(calibrated: Place) -> None:
    collection = calibrated.open()
    add(collection, "new", UNRELATED[700], kind="photo")  # in the delta
    for feature in (UNRELATED[700], UNRELATED[701], ASSETS[5]):
        everywhere = collection.search(feature, 300, 8)
        in_one_cell, filtered = (
            collection.search(feature, 300, 1),
            collection.search(feature, 300, 8, {"kind": "photo"}),
        )
        assert in_one_cell.evidence.cohort == pytest.approx(everywhere.evidence.cohort)
        assert filtered.evidence.cohort == pytest.approx(everywhere.evidence.cohort)
        assert [match.asset_id for match in filtered.matches] == ["new"]
        assert len(in_one_cell.matches) < len(everywhere.matches)
        scores = {match.asset_id: match.score for match in everywhere.matches}
        for match in [*in_one_cell.matches, *filtered.matches]:
            assert match.score == pytest.approx(scores[match.asset_id])


def test_a_match_that_was_asked_for_by_its_metadata_is_not_compared_with_itself(calibrated: Place) -> None:
    collection = calibrated.open()

    def past_those_left_out(feature: Features) -> tuple[str, float]:
        match = collection.search(feature, 300, 8).matches[LEFT_OUT]
        return match.asset_id, match.distance

    def is_compared(feature: Features, distance: float, **where: str) -> bool:
        return bool(np.isclose(collection.search(feature, 5, 8, where).evidence.cohort, distance).any())

    asked = next(feature for feature in UNRELATED[600:] if is_compared(feature, past_those_left_out(feature)[1]))
    name, distance = past_those_left_out(asked)
    add(collection, name, ASSETS[int(name.removeprefix("asset-"))], kind="photo")
    assert is_compared(asked, distance)
    assert not is_compared(asked, distance, kind="photo")
    assert [match.asset_id for match in collection.search(asked, 5, 8, {"kind": "photo"}).matches] == [name]


def test_compaction_and_rollback_keep_distractors_apart(calibrated: Place) -> None:
    collection = calibrated.open()
    add(collection, "new", UNRELATED[700])
    calibrated.remove("asset-3")
    before = [found(collection, feature, k=20) for feature in ASSETS[:30]]
    for change in (calibrated.compact, lambda: calibrated.rollback(1)):
        manifest = change()
        assert collection.follow()
        assert [part.count for part in manifest.segments if part.distractors] == [600]
        assert manifest.calibration is not None
        assert [found(collection, feature, k=20) for feature in ASSETS[:30]] == before
        assert found(collection, UNRELATED[700], k=1) == ["new"]


def test_a_collection_that_has_doubled_is_calibrated_again_at_compaction(calibrated: Place) -> None:
    built = calibrated.files.current().calibration
    assert built is not None
    collection, more = calibrated.open(), unit_vectors(900, 8)
    for number, feature in enumerate(more[:800]):
        add(collection, f"more-{number}", feature)
    assert calibrated.compact().calibration == built  # 1,700 entries, 900 before
    for number, feature in enumerate(more[800:]):
        add(collection, f"last-{number}", feature)
    again = calibrated.compact().calibration
    assert again is not None
    assert (built.entries, again.entries, again.queries) == (900, 1_800, 600)
    assert (again.fpr, again.background) == (built.fpr, built.background)
    for curve in again.curves:
        assert (np.array(curve.rates) >= built.curve(curve.nprobe).rates).all()
    assert collection.follow()
    verdicts = [judge(collection.search(f, 1).evidence).verdict for f in UNRELATED[600:]]
    assert verdicts.count("match") / len(verdicts) <= 0.08  # 5 % of 300, and chance
    assert judge(collection.search(more[5], 1).evidence).verdict == "match"


def test_verification_asks_for_assets_only(calibrated: Place) -> None:
    seen = verify_collection(calibrated.files, calibrated.journal, calibrated.open(), 1_000)
    assert (seen.entries, seen.asked, seen.found_at_16) == (300, 300, 300)


def test_a_starter_of_version_0_1_0_is_told_apart_and_calibrated(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "CODEC_0_1_0", sha256_hex((starter.FOLDER / starter.CODEC).read_bytes()))
    place = Place(starter.NAME, settings, tmp_path)
    place.files.delete_all()
    card, codes = starter.read_card(), starter.read_codes()[:500]
    codec = starter.Codec.read(starter.FOLDER / starter.CODEC, card.factory)
    old = NewCollection(place.name, codec, card.extractor, 0.5, 0.01)
    publish_first(place.files, place.journal, old, [f"reference-{i:05d}" for i in range(500)], codes, anyway)
    collection = place.open(card.extractor)
    feature = codec.decode(codes[:1])[0]
    add(collection, "mine", feature)
    assert len(found(collection, feature, k=5)) == 5  # references were answers

    manifest = starter.publish_starter(
        place.files, place.journal, card.extractor, lambda name: write_lock(place.redis, name)
    )
    assert [(part.count, part.distractors) for part in manifest.segments] == [(0, False), (500, True)]
    assert manifest.calibration == starter.read_card(starter.CARD_0_1_0).calibration
    assert collection.follow()
    assert found(collection, feature, k=5) == ["mine"]
    again = starter.publish_starter(
        place.files, place.journal, card.extractor, lambda name: write_lock(place.redis, name)
    )
    assert again.generation == manifest.generation
    assert [part.count for part in place.rollback(1).segments] == [0, 500]
    place.files.delete_all()


def test_a_collection_without_calibration_answers_by_distance(settings: Settings, tmp_path: Path) -> None:
    place = Place.published(settings, tmp_path)
    feature = trained_codec().decode(trained_codec().encode(unit_vectors(1, 0)))[0]
    evidence = place.open().search(feature, 1, 16).evidence
    assert (evidence.scores, judge(evidence).verdict, judge(evidence).threshold) == (None, "match", 0.5)
    assert np.isfinite(evidence.distances[0])
