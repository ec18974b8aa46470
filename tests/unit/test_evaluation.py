"""What an evaluation counts, on cases small enough to be counted by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import InvalidRequest
from tasks.messages import ActivationOptions
from tests.photographs import crops
from workers.activation.engine import Engine
from workers.evaluation.compare import MEASURES, compare
from workers.evaluation.copies import copies_of
from workers.evaluation.detection import Detection, detect
from workers.evaluation.disc import read_disc
from workers.evaluation.findings import Findings, RecallRow, SearchRow, VariantRow
from workers.evaluation.geometry import cells_left, distances_of
from workers.evaluation.published import Published, PublishedSet
from workers.evaluation.ranking import all_pairs, rank_rows
from workers.evaluation.released import RELEASES, released
from workers.evaluation.report.paper import average_by_edit, main_search, same_kind
from workers.evaluation.report.report import write_report
from workers.evaluation.report.sheet import Shown
from workers.evaluation.run import FLAT, EvaluationPlan, _key
from workers.evaluation.searching import Candidates, FirstMatches, Index, exact_first_matches, recall_by_edit
from workers.evaluation.setting import check_note, write_note
from workers.evaluation.subject import Photograph, Sources, read_photographs
from workers.evaluation.uncertainty import bootstrap
from workers.extractors.registry import load_extractor
from workers.images import Limits
from workers.images.edits import EDITS
from workers.images.folders import ImageFile
from workers.index.codec.codec import Codec, Features
from workers.index.codec.trainable import check_trainable

LIMITS = Limits(max_bytes=2**20, max_pixels=10**6)


def unit_vectors(count: int, seed: int) -> Features:
    values = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def first(positions: list[int], distances: list[float]) -> FirstMatches:
    return FirstMatches(np.array(positions), np.array(distances, dtype=np.float32), 0.0)


def test_precision_and_recall_are_those_counted_by_hand() -> None:
    copies = first([0, 1, 7, -1], [0.1, 0.2, 0.3, np.inf])  # two right, one wrong, one that found nothing
    found = detect(copies, np.array([0, 1, 2, 3]), first([5], [0.15]))
    assert found.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert found.recall.tolist() == pytest.approx([1 / 4, 1 / 4, 2 / 4, 2 / 4])
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 4)
    assert (found.threshold, found.recall_at_threshold) == (pytest.approx(0.1), 0.25)


def test_without_one_right_answer_there_is_no_threshold() -> None:
    found = detect(first([3], [0.1]), np.array([0]), first([], []))
    assert (found.average_precision, found.threshold, found.recall_at_threshold) == (0.0, None, 0.0)


def test_an_exact_search_finds_what_comparing_all_pairs_finds() -> None:
    references, registered, queries = unit_vectors(300, 0), unit_vectors(40, 1), unit_vectors(100, 2)
    answer = exact_first_matches(references, registered, queries)
    everything = np.concatenate([references, registered])
    nearest = (queries @ everything.T).argmax(axis=1) - len(references)
    assert (answer.positions == np.maximum(nearest, -1)).all()
    assert answer.distances == pytest.approx(2 - 2 * (queries @ everything.T).max(axis=1), abs=1e-5)


def test_an_index_answers_with_the_positions_of_registered_images_and_minus_one_for_references() -> None:
    references, registered = unit_vectors(500, 0), unit_vectors(40, 1)
    codec = Codec.train("Flat", references)
    index = Index(codec, codec.encode(references), codec.encode(registered))
    assert len(index) == 540
    assert index.first_matches(registered, 1).positions.tolist() == list(range(40))
    assert set(index.first_matches(references[:20], 1).positions.tolist()) == {-1}


def test_recall_is_the_share_of_copies_whose_original_comes_first() -> None:
    edits = {"one": unit_vectors(4, 0), "other": unit_vectors(4, 1)}
    assert recall_by_edit(first([0, 1, 2, 3, 0, 0, 2, -1], [0.0] * 8), edits) == {"one": 1.0, "other": 0.5}


def test_matches_of_one_distance_pass_a_threshold_together() -> None:
    found = detect(first([0, 1], [0.5, 0.5]), np.array([0, 1]), first([0, 0], [0.5, 0.5]))
    assert (found.precision.tolist(), found.recall.tolist()) == ([0.5], [1.0])
    assert found.average_precision == 0.5
    assert found.threshold is None


def test_an_exact_search_of_many_queries_answers_like_one_of_few() -> None:
    references, registered, queries = unit_vectors(50, 0), unit_vectors(9, 1), unit_vectors(5_000, 2)
    answer = exact_first_matches(references, registered, queries)
    last = exact_first_matches(references, registered, queries[4_500:])
    assert (answer.positions[4_500:] == last.positions).all()
    assert answer.distances[4_500:] == pytest.approx(last.distances, abs=1e-6)


def test_figures_of_photographs_have_an_interval_that_holds_their_mean_and_narrows_with_their_number() -> None:
    few, many = (np.tile([0.0, 1.0], count) for count in (5, 500))
    (low, high), (inner_low, inner_high) = bootstrap(few), bootstrap(many)
    assert low < inner_low < 0.5 < inner_high < high
    assert bootstrap(np.ones(9)) == (1.0, 1.0)
    assert bootstrap(few) == (low, high)


def test_an_image_at_the_third_place_counts_for_r_at_10_and_not_for_r_at_1() -> None:
    positions = np.array([[0, 5, 1], [5, 6, 1]])  # of photographs 0 and 1
    rows = list(rank_rows("PQ", 1, Candidates(positions, np.ones((2, 3), np.float32)), 2, activated=False))
    assert [(row.k, row.recall) for row in rows] == [(1, 0.5), (10, 1.0), (100, 1.0)]


def test_what_robust_mode_published_by_its_former_schedule_is_not_gone_on_with() -> None:
    plain, robust = (_key("IVF512,PQ8x8", ActivationOptions(robust=on)) for on in (False, True))
    assert robust not in (plain, f"{plain}-robust")


def test_all_pairs_are_ranked_at_once_and_pairs_of_one_distance_pass_together() -> None:
    copies = Candidates(np.array([[0, 7], [-1, 1]]), np.array([[0.1, 0.4], [0.2, 0.3]], np.float32))
    unrelated = Candidates(np.array([[3, -1]]), np.array([[0.1, np.inf]], np.float32))
    plain, normalised = all_pairs("PQ", 1, copies, unrelated, activated=True)
    # 0.1: one right, one wrong; 0.2: wrong; 0.3: right; 0.4: wrong
    assert plain.average_precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert (plain.queries, plain.copies, plain.recall_at_90) == (3, 2, 0.0)
    assert plain.low <= plain.average_precision <= plain.high
    assert normalised.normalised
    assert normalised.average_precision == pytest.approx(plain.average_precision)  # no query has a cohort


def test_a_copy_far_from_its_code_has_left_the_cell_and_lies_at_that_distance() -> None:
    references = unit_vectors(600, 0)
    codec = Codec.train("IVF8,Flat", references)
    registered = codec.encode(references[:5])
    copies = {"identity": references[:5], "other": -references[:5]}
    left = {row.edit: row.left for row in cells_left("IVF8,Flat", codec, registered, copies, activated=False)}
    assert left["identity"] == 0.0
    assert left["other"] > 0.5
    distances = list(distances_of(codec, registered, copies, first([0, -1], [0.25, np.inf]), activated=False))
    assert distances[0].values.tolist() == pytest.approx([0.0] * 5, abs=1e-5)
    assert distances[1].values.tolist() == pytest.approx([2.0] * 5, abs=1e-5)
    assert distances[2].values.tolist() == pytest.approx([0.5])
    assert not list(cells_left("PQ8x4", Codec.train("PQ8x4", references), registered, copies, activated=False))


def test_what_is_released_is_recompressed_before_it_is_edited() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8))
    assert released(RELEASES["half size, JPEG 85"])["identity"](image, 0).size == (24, 32)
    worse = released(RELEASES["JPEG 60"])["identity"](image, 0)
    assert np.asarray(worse).tobytes() != np.asarray(image).tobytes()
    assert worse.tobytes() == RELEASES["JPEG 60"](image, 1).tobytes()


def lay_out(folder: Path, *parts: str) -> None:
    for part in parts:
        (folder / part).mkdir(parents=True)


def test_a_folder_that_is_not_laid_out_as_disc_is_refused_by_what_is_missing(tmp_path: Path) -> None:
    for part, message in (("references", "no folder references"), ("training", "no folder training")):
        with pytest.raises(InvalidRequest, match=message):
            read_disc(tmp_path)
        lay_out(tmp_path, part)
    with pytest.raises(InvalidRequest, match=r"no .*ground_truth"):
        read_disc(tmp_path)
    (tmp_path / "final_ground_truth.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidRequest, match="query_id,reference_id"):
        read_disc(tmp_path)


def test_disc_is_read_as_the_challenge_publishes_it(tmp_path: Path) -> None:
    lay_out(tmp_path, "references", "training", "queries")
    (tmp_path / "public_ground_truth.csv").write_text("query_id,reference_id\nQ00001,R000007\nQ00002,\n")
    sources = read_disc(tmp_path)
    assert (sources.only, sources.training) == (frozenset({"R000007"}), [tmp_path / "training"])
    assert (sources.unrelated, sources.related) == ([tmp_path / "queries"], frozenset({"Q00001"}))


def test_disc_is_read_as_its_archives_unpack(tmp_path: Path) -> None:
    lay_out(tmp_path, "refs/refs_50k_0", "train", "dev_queries", "test_queries")
    (tmp_path / "dev_queries_groundtruth.csv").write_text("Q00001,R000007\nQ00003,R000009\n")
    (tmp_path / "test_queries_groundtruth.csv").write_text("Q50001,R000011\n")
    sources = read_disc(tmp_path)
    assert sources.only == frozenset({"R000007", "R000009"}), "the table of the development queries, without a header"
    assert (sources.references, sources.unrelated) == ([tmp_path / "refs"], [tmp_path / "dev_queries"])


@pytest.mark.parametrize(
    ("factory", "least", "message"),
    [
        ("IVF512,PQ8x8", 512, "IVF512,PQ8x8 needs at least 512 references (39 a cell: 19,968); there are 511."),
        ("IVF16,Flat", 16, "at least 16 references"),
        ("PQ8x8", 256, "PQ8x8 needs at least 256 references; there are 255."),
        ("PQ8x4", 16, "at least 16 references"),
        ("OPQ8_16,PQ8x4", 256, "at least 256 references"),
        ("PCA12,LSH", 12, "at least 12 references"),
    ],
)
def test_an_index_is_refused_with_the_number_that_trains_it(factory: str, least: int, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_trainable(factory, 16, least - 1, "references")
    assert message in refused.value.message
    check_trainable(factory, 16, least, "references")
    Codec.train(factory, unit_vectors(least, 0))


def test_an_index_that_does_not_exist_is_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="no index 'IVF16,QP8' of 16-d"):
        check_trainable("IVF16,QP8", 16, 1_000, "references")


@pytest.mark.parametrize(
    "factory",
    ["IVF16,PQ8x4fs", "PQ8x4fs", "IVF16,RaBitQ", "HNSW16", "IDMap,Flat", "IVF16,PQ8x4,RFlat"],
)
def test_an_index_of_a_family_that_cannot_be_used_is_refused_before_it_is_trained(factory: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be used"):
        check_trainable(factory, 16, 1_000, "references")
    with pytest.raises(InvalidRequest, match="cannot be used"):
        Codec.train(factory, unit_vectors(1_000, 0))


PSNR = MEASURES[0]


def variant(name: str, recall: float, psnr_db: float) -> VariantRow:
    return VariantRow(name, 1.0, 10, recall, psnr_db, psnr_db + 3, 0.99, 5.0, 1.0, 1.0)


def test_two_curves_are_compared_in_the_middle_of_what_they_share() -> None:
    rows = [variant("jnd", 0.6, 44), variant("jnd", 0.8, 40), variant("linf", 0.7, 42), variant("linf", 0.9, 38)]
    compared = compare(rows, PSNR)
    assert compared is not None
    assert (compared.at, compared.at_recall) == (41.0, 0.75)
    assert (compared.recall["jnd"], compared.recall["linf"]) == (pytest.approx(0.75), pytest.approx(0.75))
    assert (compared.figure["jnd"], compared.figure["linf"]) == (pytest.approx(41.0), pytest.approx(41.0))
    too_strong = variant("jnd", 0.76, 36)  # finds less than a weaker one, and is more visible
    assert compare([*rows, too_strong], PSNR) == compared
    assert compare([*rows[:2], variant("linf", 0.7, 35), variant("linf", 0.9, 30)], PSNR) is None


@dataclass(frozen=True)
class Bench:
    """A published set over one photograph file, its engine and codec."""

    published: PublishedSet
    engine: Engine
    photographs: list[Photograph]
    lines: Path

    def fill(self) -> None:
        self.published.fill(self.engine, self.photographs, LIMITS, lambda _: None)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    extractor = load_extractor("compact", torch.device("cpu"))
    features = np.random.default_rng(0).standard_normal((64, extractor.dimension)).astype(np.float32)
    photographs = []
    for i, data in enumerate(crops(3)):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(data)
        photographs.append(Photograph(path.name, ImageFile.at(path, path.name)))
    folder = tmp_path / "published"
    published = PublishedSet(folder, Codec.train("PQ8x4", features), ActivationOptions(steps=1))
    return Bench(published, Engine(extractor), photographs, folder / "images.jsonl")


def test_an_activation_that_was_interrupted_within_a_line_goes_on(bench: Bench) -> None:
    bench.fill()
    whole = bench.lines.read_text()
    bench.lines.write_text(whole[: whole.index("\n") + 40])
    bench.fill()
    kept, again = (
        [json.loads(line) | {"ms": 0} for line in text.splitlines()] for text in (whole, bench.lines.read_text())
    )
    assert again == kept


def test_what_is_published_is_what_was_verified_and_can_be_read_again(bench: Bench) -> None:
    bench.fill()
    assert [image.verified for image in bench.published.images] == [True, True, True]
    assert bench.published.codes.shape == (3, 4)
    assert [p.decoded(LIMITS).pixels.shape for p in bench.published.photographs] == [(128, 128, 3)] * 3


def test_copies_that_were_interrupted_within_a_batch_go_on(bench: Bench, tmp_path: Path) -> None:
    edits = {name: EDITS[name] for name in ("identity", "blur_11")}

    def copies(path: Path) -> dict[str, Features]:
        return copies_of(bench.photographs, bench.engine, LIMITS, edits, path, 0, lambda _: None)

    whole = copies(tmp_path / "whole.f32")
    torn = tmp_path / "torn.f32"
    torn.write_bytes((tmp_path / "whole.f32").read_bytes()[:3_000])
    again = copies(torn)
    assert all(np.array_equal(again[name], whole[name]) for name in edits)


def test_equal_files_count_once_and_too_few_images_are_refused(tmp_path: Path) -> None:
    files = [*crops(5), crops(1)[0]]
    for i, data in enumerate(files):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    sources = Sources([tmp_path], [])
    found = read_photographs(sources, LIMITS, None, 0, lambda done, total: None)
    assert (len(found.registered), len(found.unrelated)) == (4, 1)
    assert found.skipped == ["5.jpg: The same file as 0.jpg."]
    with pytest.raises(InvalidRequest, match="4 images that can be read are too few: 5 are the least"):
        read_photographs(sources, LIMITS, 4, 0, lambda done, total: None)


def test_only_every_so_manieth_image_is_taken_when_others_are_held_out(tmp_path: Path) -> None:
    for i, data in enumerate(crops(10)):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    found = read_photographs(Sources([tmp_path], [], every=2), LIMITS, None, 0, lambda done, total: None)
    names = {p.name for part in (found.registered, found.unrelated) for p in part.values()}
    assert names == {"0.jpg", "2.jpg", "4.jpg", "6.jpg", "8.jpg"}


def test_a_setting_is_refused_by_what_changed(tmp_path: Path) -> None:
    note = {"photographs": "a", "seed": "0"}
    check_note(tmp_path / "setting.json", note)
    write_note(tmp_path / "setting.json", note)
    check_note(tmp_path / "setting.json", note)
    with pytest.raises(InvalidRequest, match=r"something else \(photographs changed\)"):
        check_note(tmp_path / "setting.json", note | {"photographs": "b"})


def measured(main: str) -> Findings:
    """Findings of one main index and no other."""
    by_edit = dict.fromkeys(EDITS, 0.5)
    curve = Detection(np.array([0.5]), np.array([1.0]), 0.5, None, 0.0)
    return Findings(
        [RecallRow(FLAT, 0, False, 2, by_edit), *(RecallRow(main, 1, a, 2, by_edit) for a in (False, True))],
        [SearchRow(FLAT, 0, 10, 1.0, 1024), SearchRow(main, 1, 10, 0.1, 8)],
        [variant("10 steps", 0.5, 40.0)],
        [variant("jnd", 0.5, 40.0), variant("linf", 0.5, 40.0)],
        [Published("0.jpg", "0.jpg", "AA==", None, None, 1.0, 0, 3, False, 1.0)],
        {False: curve, True: curve},
    )


def test_names_from_outside_are_escaped_in_the_report_and_the_papers_figures_stand_beside_ours(tmp_path: Path) -> None:
    main, picture = "IVF4,PQ8x8", Image.new("RGB", (32, 32))
    write_report(
        tmp_path / "report.html", measured(main), EvaluationPlan(main, (), None, {}), {"command": "<script>"},
        [Shown("0.jpg", picture, picture, None, 1.0, 0)], [f"<b>{i}.jpg" for i in range(102)],
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;b&gt;99.jpg" in page
    assert "<b>" not in page
    assert "… and 2 more." in page
    assert '<td>0.500 <i title="the paper">0.75</i></td>' in page
    assert page.count("<svg") == 6
    assert "#000000" not in page.replace(", #000000)", "")  # every colour of a plot is one that the dark page changes


def test_an_index_of_the_same_kind_as_one_of_the_authors_is_compared_with_it() -> None:
    found = {factory: same_kind(factory) for factory in ("IVF256,Flat", "OPQ8_64,PQ8x8", "PCA64,LSH", "PQ8x8")}
    figures = {factory: row and (row.passive, row.activated, row.ms) for factory, row in found.items()}
    assert figures == {
        "IVF256,Flat": (0.66, 0.89, 0.32), "OPQ8_64,PQ8x8": (0.92, 0.94, 5.71), "PCA64,LSH": (0.78, 0.86, 0.99),
        "PQ8x8": None,
    }  # fmt: skip


def test_the_papers_averages_are_those_of_its_edits() -> None:
    for nprobe in (0, 1, 16):
        row = main_search(nprobe)
        assert average_by_edit(nprobe, False) == pytest.approx(row.passive, abs=0.006)
        if nprobe:
            assert average_by_edit(nprobe, True) == pytest.approx(row.activated, abs=0.006)
