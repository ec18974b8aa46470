"""Look-ups by feature vector, through a real worker; and many searches at once against one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from producer import Producer
from producer.vectors import Vectors
from tasks.errors import ExtractorMismatch, InvalidRequest
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.messages import QueryOptions
from tasks.results import ActivationResult, LookupResult
from tasks.settings import Settings
from tests.collections import Place, add, unit_vectors
from tests.integration.test_tiers import grown
from tests.photographs import crops
from tests.stack import aii
from tests.waiting import LIMIT_S
from workers.index.codec.codec import Codec
from workers.index.collection.changes import decode_code
from workers.index.maintenance import starter


def test_vectors_find_what_was_activated(producer: Producer, shared_worker: object) -> None:
    activated = [producer.activate(image).wait(LIMIT_S) for image in crops(2, side=96)]
    assert all(isinstance(result, ActivationResult) for result in activated)
    codec = Codec.read(starter.FOLDER / "codec.faiss", starter.read_card().factory)
    codes = np.stack([decode_code(result.code) for result in activated])
    vectors = codec.decode(codes)
    extractor = starter.read_card().extractor.sha256
    answer = producer.query_vectors(vectors, extractor=extractor, options=QueryOptions(top_k=2)).wait(LIMIT_S)
    assert isinstance(answer, LookupResult)
    first = [found.matches[0] for found in answer.answers]
    assert [match.asset_id for match in first] == [result.asset_id for result in activated]
    assert max(match.distance for match in first) < 1e-3
    assert all(found.assessment.assets >= 2 for found in answer.answers)


def test_files_of_vectors_are_looked_up_on_the_command_line(
    stack_environment: dict[str, str], shared_worker: object, tmp_path: Path
) -> None:
    vectors = np.eye(3, starter.read_card().extractor.dimension)
    np.save(tmp_path / "a.npy", vectors)
    (tmp_path / "a.json").write_text(json.dumps(vectors.tolist()))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in vectors.tolist()))
    told = [
        aii(stack_environment, "lookup", str(tmp_path / name), "--top", "2", "--json")
        for name in ("a.npy", "a.json", "a.jsonl")
    ]
    assert [run.returncode for run in told] == [0, 0, 0], told[0].stderr
    answers = [json.loads(line) for line in told[0].stdout.splitlines()]
    assert [answer["vector"] for answer in answers] == [0, 1, 2]
    assert told[0].stdout == told[1].stdout == told[2].stdout
    (tmp_path / "a.txt").write_text("no vectors")
    refused = aii(stack_environment, "lookup", str(tmp_path / "a.txt"))
    assert (refused.returncode, "JSON" in refused.stderr) == (1, True), refused.stderr


def test_a_long_file_is_looked_up_in_parts_and_answered_in_order(
    settings: Settings, stack_environment: dict[str, str], shared_worker: object, tmp_path: Path
) -> None:
    vectors = np.random.default_rng(3).standard_normal((60, starter.read_card().extractor.dimension))
    np.save(tmp_path / "a.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    told = {}
    for most in (1, 100):  # of a hundred matches each, fifty answers are a job
        run = aii(stack_environment, "lookup", str(tmp_path / "a.npy"), "--top", str(most), "--json")
        assert run.returncode == 0, run.stderr
        told[most] = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(Operations.connect(settings).jobs(JobState.DONE, 9)) == 1 + 2
    assert [answer["vector"] for answer in told[100]] == list(range(60))
    nearest = {most: [answer["assessment"]["nearest_distractor"] for answer in told[most]] for most in told}
    assert nearest[100] == pytest.approx(nearest[1], abs=1e-5)
    assert len(set(nearest[1])) == 60


def test_vectors_of_another_kind_are_refused(producer: Producer, shared_worker: object) -> None:
    dimension = starter.read_card().extractor.dimension
    good = np.eye(1, dimension)
    with pytest.raises(InvalidRequest, match="values each"):
        producer.query_vectors(good[:, 1:]).wait(LIMIT_S)
    with pytest.raises(InvalidRequest, match="no finite number"):
        producer.query_vectors(Vectors((good * np.nan).astype("<f4").tobytes(), 1, dimension)).wait(LIMIT_S)
    with pytest.raises(InvalidRequest, match="above 1,000,000"):
        producer.query_vectors(good * 1e30).wait(LIMIT_S)
    with pytest.raises(ExtractorMismatch, match="extract them with that one"):
        producer.query_vectors(good, extractor="0" * 64).wait(LIMIT_S)


@pytest.mark.parametrize("nprobe", [1, 4, 16])
def test_many_searches_at_once_are_those_of_plain_faiss(place: Place, nprobe: int) -> None:
    collection, queries = place.open(), unit_vectors(50, 7)
    plain = collection.codec.filled(collection.segments[0].codes)
    plain.nprobe = nprobe
    expected = plain.search(queries, 5)[0]
    for answer, distances in zip(collection.search_many(queries, 5, nprobe), expected, strict=True):
        found = [match.distance for match in answer.matches]
        assert found == pytest.approx(distances[: len(found)], abs=1e-5)
        assert (distances[len(found) :] > 1e30).all()


@pytest.mark.parametrize("segments", [1, 4])
def test_many_searches_at_once_see_changes_and_filters_as_single_ones_do(place: Place, segments: int) -> None:
    grown(place, segments - 1)
    collection, queries = place.open(), unit_vectors(20, 0)
    for i, feature in enumerate(unit_vectors(5, 9)):
        add(collection, f"new-{i}", feature, licence="free")
    place.remove("old-3")
    for where in ({}, {"licence": "free"}):
        many = collection.search_many(queries, 4, 2, where)
        single = [collection.search(query, 4, 2, where) for query in queries]
        assert [answer.matches for answer in many] == [answer.matches for answer in single]
        assert "old-3" not in {match.asset_id for answer in many for match in answer.matches}
