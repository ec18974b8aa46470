"""Explanations, evidence and feedback: what people ask and say about answers, through a real worker."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from producer import Producer
from tasks.errors import InvalidRequest
from tasks.messages import QueryOptions
from tasks.names import sha256_hex
from tasks.results import ActivationResult, ExplanationResult, QueryResult
from tests.photographs import photographs
from tests.stack import WorkerProcess, aii, aii_here
from tests.waiting import LIMIT_S
from workers.index.maintenance.starter import read_card


@pytest.fixture(autouse=True)
def worker(shared_worker: WorkerProcess, settings: object) -> WorkerProcess:
    return shared_worker


@pytest.fixture
def asset(producer: Producer) -> ActivationResult:
    """An asset of its own of each test: the worker remembers those before."""
    result = producer.activate(photographs()["chelsea.png"], asset_id="chelsea").wait(LIMIT_S)
    assert isinstance(result, ActivationResult)
    return result


@pytest.fixture
def copies(producer: Producer, asset: ActivationResult, tmp_path: Path) -> dict[str, Path]:
    """The published image, a copy that was mirrored, and an image of something else."""
    published = Image.open(io.BytesIO(producer.protected_image(asset))).convert("RGB")
    pictures = {"same": published, "mirrored": ImageOps.mirror(published)}
    paths = {}
    for name, picture in pictures.items():
        paths[name] = tmp_path / f"{name}.png"
        picture.save(paths[name])
    paths["other"] = tmp_path / "other.png"
    paths["other"].write_bytes(photographs()["coffee.png"])
    return paths


def asked(environment: dict[str, str], path: Path, *options: str) -> dict[str, Any]:
    done = aii_here(environment, "query", str(path), "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def explained(producer: Producer, path: Path, **options: Any) -> ExplanationResult:
    result = producer.explain(path, "chelsea", options=QueryOptions(**options)).wait(LIMIT_S)
    assert isinstance(result, ExplanationResult)
    return result


def answered(producer: Producer, path: Path) -> QueryResult:
    result = producer.query(path).wait(LIMIT_S)
    assert isinstance(result, QueryResult)
    return result


def test_an_answer_says_how_many_cells_were_searched_for_a_query_that_did_not(
    producer: Producer, copies: dict[str, Path]
) -> None:
    assert answered(producer, copies["same"]).options.nprobe == 16
    assert explained(producer, copies["same"]).options.nprobe == 16
    assert explained(producer, copies["same"], nprobe=2).options.nprobe == 2


def test_an_explanation_of_the_published_file_agrees_with_what_the_activation_measured(
    producer: Producer, asset: ActivationResult, copies: dict[str, Path]
) -> None:
    result = explained(producer, copies["same"])
    assert (result.found, result.verdict, result.rejected, result.view) == (True, "match", False, "as_is")
    assert (result.query.cell_rank, result.rank, result.smallest_nprobe, result.verdict_then) == (1, 1, 1, "match")
    # A search compares what a rotation leaves of the dimensions; verification measures in all of them.
    assert 0 < result.query.distance <= asset.verification.distance_after + 1e-3
    facts = result.asset
    assert (facts.activation, facts.protected_sha256) == (asset.job_id, asset.protected_sha256)
    assert facts.original_sha256 == sha256_hex(photographs()["chelsea.png"])
    assert facts.original is not None
    assert result.query.distance < facts.original.distance <= asset.verification.distance_before + 1e-3
    assert facts.distance_to_published == pytest.approx(0, abs=1e-3)
    # The query is the file itself, so the unprotected query would be the original.
    assert result.passive is not None
    assert result.passive.distance == pytest.approx(facts.original.distance, abs=0.01)


def test_an_image_of_something_else_is_explained_by_what_is_nearer(producer: Producer, copies: dict[str, Path]) -> None:
    result = explained(producer, copies["other"])
    assert (result.found, result.smallest_nprobe is None or result.smallest_nprobe > 1) == (False, True)
    assert result.query.cell_rank is not None
    assert 1 < result.query.cell_rank <= (result.cells or 0)
    assert result.query.distance > 1
    assert result.asset.distance_to_original is not None
    assert result.asset.distance_to_original > 1


def test_a_mirrored_copy_is_explained_by_the_view_that_lies_nearest(
    producer: Producer, copies: dict[str, Path]
) -> None:
    assert explained(producer, copies["mirrored"], views=("mirror", "rotations")).view == "mirror"


def test_the_smallest_nprobe_of_an_explanation_is_the_one_that_finds_the_asset(
    producer: Producer, copies: dict[str, Path], tmp_path: Path
) -> None:
    turned = tmp_path / "turned.png"
    Image.open(copies["same"]).rotate(20, expand=True).save(turned)
    result = explained(producer, turned)
    least = result.query.cell_rank
    assert least is not None
    for nprobe in {max(1, least - 1), least}:
        met = producer.query(turned, options=QueryOptions(nprobe=nprobe, top_k=100)).wait(LIMIT_S)
        assert isinstance(met, QueryResult)
        assert ("chelsea" in {match.asset_id for match in met.matches}) is (nprobe == least)


def test_the_command_explains_in_words_and_names_an_asset_that_is_not_there(
    stack_environment: dict[str, str], copies: dict[str, Path]
) -> None:
    told = aii(stack_environment, "explain", str(copies["same"]), "chelsea")
    assert told.returncode == 0, told.stderr
    cells = read_card().factory.partition("IVF")[2].partition(",")[0]
    assert f"its code's cell is the 1st nearest of {cells}, met from nprobe 1 on" in told.stdout
    assert "had the asset been published unchanged" in told.stdout
    missing = aii(stack_environment, "explain", str(copies["same"]), "no-such-asset", "--json")
    assert missing.returncode == 1
    assert "has no asset 'no-such-asset'" in missing.stderr
    assert "[not_found]" in missing.stderr


def test_a_rejected_asset_is_not_reported_for_that_image_until_it_is_confirmed(
    producer: Producer, stack_environment: dict[str, str], copies: dict[str, Path]
) -> None:
    before = answered(producer, copies["same"])
    assert before.matches[0].asset_id == "chelsea"
    said = aii(stack_environment, "feedback", before.job_id[:12], "reject", "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["status"] == "rejected"

    after = answered(producer, copies["same"])
    assert "chelsea" not in {match.asset_id for match in after.matches}
    assert after.verdict != "match"
    assert explained(producer, copies["same"]).rejected
    mirrored = producer.query(copies["mirrored"], options=QueryOptions(views=("mirror",))).wait(LIMIT_S)
    assert isinstance(mirrored, QueryResult)
    assert mirrored.matches[0].asset_id == "chelsea"  # of another image nothing was said

    producer.feedback(before, "confirm").wait(LIMIT_S)
    assert answered(producer, copies["same"]).matches[0].asset_id == "chelsea"


def test_feedback_of_what_the_query_did_not_find_is_refused_with_what_it_found(
    producer: Producer, stack_environment: dict[str, str], copies: dict[str, Path]
) -> None:
    answer = answered(producer, copies["same"])
    for opinion in ("reject", "confirm"):
        refused = aii(stack_environment, "feedback", answer.job_id, opinion, "--asset", "nosuch")
        assert refused.returncode == 1
        assert "did not find 'nosuch', but chelsea" in refused.stderr
    with pytest.raises(InvalidRequest, match="nothing to confirm or reject"):
        producer.feedback(answer.model_copy(update={"matches": ()}), "reject", "chelsea")
    assert not explained(producer, copies["same"]).rejected


def test_feedback_of_what_is_no_answer_is_refused(
    stack_environment: dict[str, str], producer: Producer, asset: ActivationResult
) -> None:
    refused = aii(stack_environment, "feedback", asset.job_id, "reject")
    assert refused.returncode == 1
    assert "is no query that was answered" in refused.stderr


def test_evidence_is_a_page_of_its_own_with_both_images_and_every_digest(
    stack_environment: dict[str, str], asset: ActivationResult, copies: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "evidence"
    hostile = copies["mirrored"].rename(tmp_path / "<b>&.png")
    done = aii(
        stack_environment, "query", str(hostile), "--evidence", str(folder), "--views", "mirror,rotations", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (page,) = folder.glob("*.html")
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 4  # query and asset, and both aligned
    assert 'style="transform: scaleX(-1)"' in html
    assert "<b>&" not in html
    wanted = [answer["job_id"], answer["source_sha256"], asset.job_id, asset.source_sha256, asset.protected_sha256]
    assert all(digest in html for digest in wanted)
    assert not re.search(r"https?://|<script|src=\"(?!data:)", html)


def test_evidence_needs_answers_to_wait_for(stack_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photographs()["coffee.png"])
    wrong = aii(stack_environment, "query", str(tmp_path / "a.png"), "--no-wait", "--evidence", str(tmp_path / "e"))
    assert wrong.returncode == 2


def test_a_query_chooses_its_rate_or_its_distance(
    stack_environment: dict[str, str], asset: ActivationResult, copies: dict[str, Path]
) -> None:
    usual = asked(stack_environment, copies["same"])
    assert (usual["verdict"], usual["assessment"]["fpr"]) == ("match", 0.01)
    rare = asked(stack_environment, copies["same"], "--fpr", "0.002")
    assert rare["assessment"]["fpr"] == 0.002
    assert rare["assessment"]["threshold"] < usual["assessment"]["threshold"]
    unmeasured = asked(stack_environment, copies["same"], "--fpr", "0.000001")
    assert unmeasured["verdict"] == "uncalibrated"
    assert "takes 3,000,000 unrelated images to measure" in unmeasured["assessment"]["reason"]
    for distance, verdict in (("0", "no_match"), ("4", "match")):
        answer = asked(stack_environment, copies["same"], "--threshold", distance)
        assert (answer["verdict"], answer["threshold"]) == (verdict, float(distance))
