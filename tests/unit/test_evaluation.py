"""What an evaluation counts, on cases small enough to be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.errors import InvalidRequest
from workers.evaluation.detection import detect
from workers.evaluation.disc import read_disc
from workers.evaluation.searching import First, Index, exact_first, recall_by_edit
from workers.index.codec import Codec, Features


def unit_vectors(count: int, seed: int) -> Features:
    values = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def first(positions: list[int], distances: list[float]) -> First:
    return First(np.array(positions), np.array(distances, dtype=np.float32), 0.0)


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
    answer = exact_first(references, registered, queries)
    everything = np.concatenate([references, registered])
    nearest = (queries @ everything.T).argmax(axis=1) - len(references)
    assert (answer.positions == np.maximum(nearest, -1)).all()
    assert answer.distances == pytest.approx(2 - 2 * (queries @ everything.T).max(axis=1), abs=1e-5)


def test_an_index_answers_with_the_positions_of_registered_images_and_minus_one_for_references() -> None:
    references, registered = unit_vectors(500, 0), unit_vectors(40, 1)
    codec = Codec.train("Flat", references)
    index = Index(codec, codec.encode(references), codec.encode(registered))
    assert len(index) == 540
    assert index.first(registered, 1).positions.tolist() == list(range(40))
    assert set(index.first(references[:20], 1).positions.tolist()) == {-1}


def test_recall_is_the_share_of_copies_whose_original_comes_first() -> None:
    edits = {"one": unit_vectors(4, 0), "other": unit_vectors(4, 1)}
    assert recall_by_edit(first([0, 1, 2, 3, 0, 0, 2, -1], [0.0] * 8), edits) == {"one": 1.0, "other": 0.5}


def test_a_folder_in_the_layout_of_disc_names_what_is_activated(tmp_path: Path) -> None:
    for part, message in (("references", "no folder references"), ("training", "no folder training")):
        with pytest.raises(InvalidRequest, match=message):
            read_disc(tmp_path)
        (tmp_path / part).mkdir()
    with pytest.raises(InvalidRequest, match=r"no .*ground_truth"):
        read_disc(tmp_path)
    table = tmp_path / "final_ground_truth.csv"
    table.write_text("query_id,reference_id\nQ00001,R000007\nQ00002,\n")
    sources = read_disc(tmp_path)
    assert (sources.only, sources.training) == (frozenset({"R000007"}), [tmp_path / "training"])
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidRequest, match="query_id,reference_id"):
        read_disc(tmp_path)
