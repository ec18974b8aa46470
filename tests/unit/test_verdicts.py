"""Scores, calibration and verdicts, on features of real photographs: what the starter collection's codes stand for."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.errors import ShardUnavailable
from tasks.results import ExtractorIdentity
from workers.extractors.registry import load_extractor
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Features, search
from workers.index.codec.stored import FeatureType
from workers.index.maintenance import starter
from workers.index.maintenance.build import NewCollection, train_collection
from workers.index.maintenance.plain_images import plain_images
from workers.index.verdicts.background import Background
from workers.index.verdicts.calibration import Calibration, needed_queries, wilson
from workers.index.verdicts.duplicates import groups_of, near_distance
from workers.index.verdicts.judge import Evidence, check_searched, judge
from workers.index.verdicts.score import COHORT, COHORT_CELLS, LEFT_OUT, cohort, score

EXTRACTOR = ExtractorIdentity(name="compact", sha256="0" * 64, dimension=256)
FPR = 0.01


@cache
def shipped() -> Background:
    return Background.read(starter.FOLDER / starter.BACKGROUND)


@cache
def background() -> Background:
    """A part of what is shipped, for speed."""
    return Background(shipped().features[:600], 600)


@cache
def pictures() -> Features:
    """(N, 256) of norm 1, none of them near the background."""
    codec = Codec.read(starter.FOLDER / starter.CODEC, starter.read_card().factory)
    features = _unit(codec.decode(starter.read_codes()[:9_000]))
    near = (2 - 2 * features @ shipped().features.T).min(axis=1) < 0.7
    return features[~near]


def moved(features: Features, by: float, seed: int) -> Features:
    """Edited versions: each feature moved by a distance in a random direction."""
    noise = np.random.default_rng(seed).standard_normal(features.shape).astype(np.float32)
    return _unit(features + by * _unit(noise))


def _unit(features: Features) -> Features:
    unit: Features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit


# ── score ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_score_is_the_distance_over_the_mean_of_the_others() -> None:
    assert score(0.5, [1.0, 1.0, 1.0], 2.0) == 0.5
    assert score(0.5, [0.5, 1.0, 1.0], 2.0) == 0.5  # its own distance is left out
    assert score(0.5, [], 2.0) == 0.25
    assert score(0.5, [0.0], 2.0) == 1.0


def test_the_nearest_assets_may_be_versions_of_the_match_and_are_no_cohort() -> None:
    assert cohort([], [0.1] * LEFT_OUT) == []
    assert cohort([0.9, 1.0], [*[0.1] * LEFT_OUT, 0.95]) == [0.9, 0.95, 1.0]
    assert len(cohort([1.0] * 100, [0.5] * 100)) == COHORT + 1


# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("nprobe", [1, 3, 16, 64, 1_000])
def test_a_threshold_falls_with_the_number_of_assets_and_rises_with_the_rate(nprobe: int) -> None:
    calibration = starter.read_card().calibration
    by_size = [calibration.threshold(FPR, nprobe, count) for count in (10, 200, 5_000, 40_000, 2_000_000)]
    by_rate = [calibration.threshold(rate, nprobe, 5_000) for rate in (0.1, 0.01, 0.001)]
    for falling in (by_size, by_rate):
        assert all(a is not None and b is not None and a > b for a, b in pairwise(falling))


def test_a_rate_that_too_few_images_can_show_has_no_threshold_and_the_verdict_says_how_many_it_takes() -> None:
    calibration = starter.read_card().calibration
    assert calibration.threshold(1 / calibration.queries, 1, 100) is None
    judged = judge(_evidence(0.4, calibration), fpr=0.0001)
    assert judged.verdict == "uncalibrated"
    assert f"{needed_queries(0.0001):,}" in judged.assessment.reason


def test_more_images_tell_a_threshold_more_narrowly_and_its_lower_end_is_what_verdicts_use() -> None:
    calibration = starter.read_card().calibration
    widths = []
    for queries in (300, 3_072, 300_000):
        between = calibration.model_copy(update={"queries": queries}).interval(FPR, 16, 1_000)
        assert between is not None
        assert between[0] == calibration.threshold(FPR, 16, 1_000)
        widths.append(between[1] - between[0])
    assert widths == sorted(widths, reverse=True)
    assert 0 < widths[-1] < widths[0] < 0.1
    assert calibration.interval(1 / calibration.queries, 16, 1_000) is None
    judged = judge(_evidence(0.5, calibration)).assessment
    assert judged.threshold_high == calibration.interval(FPR, 16, 1_000)[1]  # type: ignore[index]
    assert f"at most {judged.threshold_high:.3f}" in judged.reason


@pytest.mark.parametrize("kind", ["calibration", "reranked"])
def test_a_better_score_is_a_more_probable_copy(kind: str) -> None:
    calibration: Calibration = getattr(starter.read_card(), kind)
    found = calibration.probabilities((0.4, 0.75, 0.85, 0.99), 1, 1_000)
    assert all(a is not None and b is not None and a >= b for a, b in pairwise(found))
    assert found[0] == pytest.approx(1, abs=0.01)
    assert found[-1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("factory", "kept", "like"),
    [
        ("IVF4,PQ8x4", None, "calibration"), ("IVF4,PQ8x4", "int8", "reranked"), ("LSH", "float16", "reranked"),
        ("Flat", None, "reranked"), ("IVF4,Flat", None, "reranked"), ("LSH", None, None),
    ],
)  # fmt: skip
def test_scores_become_probabilities_by_copies_whose_scores_mean_the_same(
    factory: str, kept: FeatureType | None, like: str | None
) -> None:
    card, images = starter.read_card(), pictures()[:400]
    new = starter.with_usual_copies(train_collection("any", factory, card.extractor, images, FPR, None, kept)[0])
    assert new.calibration is not None
    copies = [curve.copies for curve in new.calibration.curves]
    expected = getattr(card, like).curves if like else []
    assert copies == [curve.copies for curve in expected][: len(copies)] or (copies, like) == ([[]], None)
    other = starter.with_usual_copies(train_collection("any", factory, EXTRACTOR, images, FPR, None, kept)[0])
    assert other.calibration is not None
    assert other.calibration.copies_of == ""


def test_of_two_measurements_the_higher_rate_counts() -> None:
    calibration = starter.read_card().calibration
    assert calibration.rate(0.6, 16, 1_000) < 0.01
    curves = [curve.model_copy(update={"rates": [[0.5] * 73] * 9}) for curve in calibration.curves]
    other = starter.read_card().calibration.model_copy(update={"curves": curves})
    for either in (calibration.at_least(other), other.at_least(calibration)):
        assert either.rate(0.6, 16, 1_000) == 0.5
        assert either.rate(1.0, 16, 10**8) == calibration.rate(1.0, 16, 10**8)


@pytest.mark.parametrize("successes", [0, 1, 50, 100])
def test_wilsons_interval_holds_the_share_and_stays_within_one(successes: int) -> None:
    low, high = wilson(successes, 100)
    assert 0 <= low <= successes / 100 <= high + 1e-9 <= 1 + 1e-9


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _evidence(distance: float | None, calibration: Calibration | None, **changed: object) -> Evidence:
    found = {
        "distances": [] if distance is None else [distance, distance + 0.2], "cohort": [1.0] * COHORT,
        "nearest_distractor": 1.0, "assets": 1_000, "nprobe": 16, "crowded": False, "hidden": False,
        "calibration": calibration, "threshold": None,
    }  # fmt: skip
    return Evidence(**(found | changed))  # type: ignore[arg-type]


def test_scores_are_told_apart_in_three_bands_with_their_rates() -> None:
    calibration = starter.read_card().calibration
    near, middling, far = (judge(_evidence(d, calibration)) for d in (0.5, 0.88, 0.98))
    assert (near.verdict, middling.verdict, far.verdict) == ("match", "possible", "no_match")
    facts = near.assessment
    assert (facts.fpr, facts.possible_fpr, facts.margin) == (0.01, 0.1, pytest.approx(0.2))
    assert facts.threshold is not None
    assert facts.possible_threshold is not None
    assert facts.threshold < facts.possible_threshold
    assert near.threshold == pytest.approx(facts.threshold)  # the cohort's mean is 1


def test_what_the_query_asks_for_overrides_the_collections_threshold() -> None:
    calibration = starter.read_card().calibration
    limit = calibration.threshold(FPR, 16, 1_000)
    assert limit is not None
    assert judge(_evidence(limit - 0.001, calibration)).verdict == "match"
    assert judge(_evidence(limit - 0.001, calibration), fpr=0.001).verdict == "possible"
    assert judge(_evidence(0.8, calibration), threshold=0.7).verdict == "no_match"
    assert judge(_evidence(0.8, None), threshold=0.9).verdict == "match"


def test_without_a_shard_a_verdict_claims_less_and_says_how_much_was_not_searched() -> None:
    calibration = starter.read_card().calibration
    near, middling, far, none = (judge(_evidence(d, calibration, unsearched=0.25)) for d in (0.5, 0.88, 0.98, None))
    assert (near.verdict, middling.verdict, far.verdict) == ("possible", "possible", "incomplete")
    assert none.verdict == "incomplete"
    for judged in (near, middling, far, none):
        assert judged.assessment.unsearched == 0.25
        assert judged.assessment.false_match_rate is None
        assert "25% of the cells were not searched" in judged.assessment.reason
    by_distance = [judge(_evidence(d, calibration, unsearched=0.25), threshold=0.7).verdict for d in (0.5, 0.8)]
    assert by_distance == ["match", "incomplete"]
    with pytest.raises(ShardUnavailable, match="25%"):
        check_searched(_evidence(0.5, calibration, unsearched=0.25))


def test_views_share_the_rate_of_one_query() -> None:
    calibration = starter.read_card().calibration
    one, eight = (judge(_evidence(0.5, calibration, views=count)).assessment for count in (1, 8))
    assert eight.threshold == pytest.approx(calibration.threshold(0.01 / 8, 16, 1_000))
    assert one.threshold is not None
    assert eight.threshold is not None
    assert eight.threshold < one.threshold
    likely = [_evidence(None, calibration, views=count).probabilities([0.8])[0] for count in (1, 8)]
    assert likely[0] is not None
    assert likely[1] is not None
    assert likely[1] < likely[0]


def test_where_nothing_is_found_the_reason_names_the_metadata_that_were_asked_for() -> None:
    for calibration, threshold in ((starter.read_card().calibration, None), (None, 0.5)):
        for by_metadata in (True, False):
            judged = judge(_evidence(None, calibration, threshold=threshold, by_metadata=by_metadata))
            assert judged.verdict == "no_match"
            assert ("with this metadata" in judged.assessment.reason) == by_metadata


def test_no_rate_is_named_for_a_score_that_is_worse_than_any_that_was_measured() -> None:
    calibration = starter.read_card().calibration
    worst, beyond = (judge(_evidence(distance, calibration)).assessment for distance in (1.0, 1.01))
    assert worst.false_match_rate == pytest.approx(calibration.rate(1.0, 16, 1_000))
    assert beyond.false_match_rate is None


def test_a_collection_of_version_0_1_0_is_judged_by_distance_as_before() -> None:
    assert judge(_evidence(0.4, None, threshold=0.5)).verdict == "match"
    assert judge(_evidence(0.6, None, threshold=0.5)).verdict == "no_match"
    assert judge(_evidence(None, None, threshold=0.5)).verdict == "no_match"
    assert judge(_evidence(0.4, None)).verdict == "uncalibrated"


def test_an_uninformative_query_matches_nothing_however_near() -> None:
    calibration = starter.read_card().calibration
    assert judge(_evidence(0.1, calibration, crowded=True, hidden=True)).verdict == "uninformative"


def test_a_match_among_plain_images_is_none_and_what_is_no_match_stays_so() -> None:
    calibration = starter.read_card().calibration
    near, middling, far = (judge(_evidence(d, calibration, hidden=True)) for d in (0.5, 0.88, 0.98))
    assert (near.verdict, middling.verdict, far.verdict) == ("uninformative", "uninformative", "no_match")


# ── background ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_background_survives_its_file(tmp_path: Path) -> None:
    background().write(tmp_path / "background")
    again = Background.read(tmp_path / "background")
    assert again.photographs == 600
    np.testing.assert_allclose(again.features, background().features, atol=0.005)


def test_plain_images_are_crowded_and_photographs_are_not() -> None:
    others = shipped().plain[::40]
    assert np.mean([shipped().uninformative(feature) for feature in others]) > 0.8
    assert np.mean([shipped().uninformative(feature) for feature in pictures()[:300]]) < 0.01


def test_a_match_that_is_far_nearer_than_the_crowd_is_told_from_it() -> None:
    crowded = [f for f in shipped().plain[::40] if shipped().uninformative(f)]
    for exact in (True, False):
        assert not any(shipped().around(feature[None])[0].hide(0.0, exact) for feature in crowded)
        assert all(shipped().around(feature[None])[0].hide(1.0, exact) for feature in crowded)


def test_plain_images_are_the_same_for_the_same_seed() -> None:
    one, again, other = (list(plain_images(12, seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def archive(count: int, duplicates: float) -> Features:
    """`count` pictures, a share of which are near-duplicates of others among them."""
    versions = round(count * duplicates)
    originals = _unrelated_to_each_other(count)[: count - versions]
    again = originals[np.arange(versions) % len(originals)]
    return np.concatenate([originals, moved(again, 0.2, 1)])


def unrelated_features(count: int) -> Features:
    """400 pictures that :func:`archive` of that count holds no version of."""
    return _unrelated_to_each_other(count)[-400:]


def _unrelated_to_each_other(count: int) -> Features:
    """Exact features where there are enough of them; reconstructions lie nearer to each other."""
    return shipped().features[600 : shipped().photographs] if count <= 1_000 else pictures()


def judged(
    new: NewCollection, codes: np.ndarray, features: Features, known: Background | None = None
) -> list[tuple[int, str]]:
    """The first asset and the verdict of each query, at nprobe 1."""
    assets, others = (
        new.codec.filled(codes),
        new.codec.filled(codes[:0] if new.distractors is None else new.distractors),
    )
    answers = []
    for feature in features:
        around = new.codec.probe(feature, COHORT_CELLS)
        probe = around.of_nearest(1)
        hits, distractors = search(assets, probe, 60), search(others, around, COHORT + 1)
        distances, beside_them = ([d for _, d in found] for found in (hits, search(assets, around, 60)))
        beside = (known or background()).around(feature[None])[0]
        evidence = Evidence(
            distances[:2], cohort([d for _, d in distractors], beside_them), None, len(codes), probe.nprobe,
            beside.crowded, beside.hide(distances[0] if distances else math.inf, new.codec.keeps_features),
            new.calibration, None,
        )  # fmt: skip
        answers.append((hits[0][0] if hits else -1, judge(evidence).verdict))
    return answers


@pytest.mark.parametrize("duplicates", [0.0, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("count", [2, 10, 40, 200, 5_000])
def test_near_duplicates_in_an_archive_of_any_size_spoil_no_threshold(count: int, duplicates: float) -> None:
    features = archive(count, duplicates)
    factory = "Flat" if count <= 1_000 else "IVF16,Flat"  # product quantisers take long to train
    new, codes = train_collection("archive", factory, EXTRACTOR, features, FPR, background())
    assert {*range(count - round(count * duplicates), count)} <= {p for group in new.duplicates for p in group}
    asked = np.arange(len(features))[:100]
    copies = judged(new, codes, moved(features[asked], 0.45, 2))
    pictured = 2 - 2 * features[asked] @ features.T < 0.3  # any version of the picture is right
    right = [position >= 0 and bool(pictured[i, position]) for i, (position, _) in enumerate(copies)]
    matched = [ok and verdict == "match" for ok, (_, verdict) in zip(right, copies, strict=True)]
    assert sum(matched) >= 0.9 * sum(right) > 0
    unrelated = judged(new, codes, unrelated_features(count))
    assert sum(verdict == "match" for _, verdict in unrelated) <= 12  # 1 % of 400 is 4


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("times", [12, 30, 100])
def test_a_picture_that_an_archive_holds_many_times_is_found_and_matched(times: int, known: bool) -> None:
    pictures = _unrelated_to_each_other(1_000)[:700]
    features = np.concatenate([pictures, np.repeat(pictures[:1], times, axis=0)])
    new, codes = train_collection("archive", "Flat", EXTRACTOR, features, FPR, background() if known else None)
    asked = np.concatenate([pictures[:1], moved(np.repeat(pictures[:1], 9, axis=0), 0.45, 2)])
    assert [verdict for _, verdict in judged(new, codes, asked)] == ["match"] * 10


def test_pages_of_text_in_an_archive_match_no_other_pages() -> None:
    extractor = load_extractor("compact", torch.device("cpu"), precision="float32")
    pages = [image for number, image in enumerate(plain_images(150, seed=9)) if number % 10 < 7]
    with torch.no_grad():
        inputs = torch.stack([to_input(page, extractor.input_size) for page in pages])
        features = extractor(inputs).numpy()
    new, codes = train_collection("archive", "Flat", EXTRACTOR, features[:50], FPR, shipped())
    others = judged(new, codes, features[50:], shipped())
    assert sum(verdict == "match" for _, verdict in others) <= 2  # of 55
    own = judged(new, codes, features[:50], shipped())
    assert all(verdict == "match" for _, verdict in own)


def test_near_duplicates_are_grouped_by_their_exact_features() -> None:
    features = pictures()[:300]
    versions = np.concatenate([features, moved(features[:5], 0.2, 1), moved(features[:1], 0.2, 2)])
    assert groups_of(versions, near_distance(features)) == [[0, 300, 305], [1, 301], [2, 302], [3, 303], [4, 304]]


def test_too_few_images_without_a_background_have_no_threshold() -> None:
    for count in (2, 100):
        new, _ = train_collection("archive", "Flat", EXTRACTOR, pictures()[:count], FPR)
        assert (new.threshold, new.threshold_fpr) == (None, None)


def test_an_archive_without_a_background_is_calibrated_on_its_own_images() -> None:
    features = archive(1_200, 0.05)
    new, _ = train_collection("archive", "IVF16,PQ8x4", EXTRACTOR, features, FPR)
    assert new.calibration is not None
    assert new.calibration.background == "the collection's own images"
    assert new.threshold is not None
    assert new.threshold_fpr == FPR
