"""The life of a collection as an operator sees it: built by workers, compacted by itself, repaired, judged."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producer import Producer
from tasks.connection import connect_redis
from tasks.errors import CollectionMissing
from tasks.messages import QueryOptions
from tasks.settings import Settings
from tests.photographs import crops
from tests.stack import WorkerProcess, aii, aii_here
from tests.waiting import LIMIT_S, wait_for


@pytest.fixture
def name() -> str:
    return f"kept-{uuid.uuid4().hex[:12]}"


def good(environment: dict[str, str], *arguments: str) -> str:
    done = aii(environment, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def good_index(environment: dict[str, str], *arguments: str) -> str:
    done = aii_here(environment, "index", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def info(environment: dict[str, str], name: str) -> dict[str, Any]:
    return json.loads(good_index(environment, "info", name, "--json"))  # type: ignore[no-any-return]


EVERYWHERE = QueryOptions(nprobe=16, top_k=100)


def is_found(producer: Producer, result: Any, name: str) -> bool:
    """Whether a published image finds its asset when all cells of the small, coarse index are searched.

    Which asset comes first among those of one code, or of a cell nearby, depends on the precision of the features.
    """
    answer = producer.query(producer.protected_image(result), collection=name, options=EVERYWHERE).wait(LIMIT_S)
    return result.asset_id in [match.asset_id for match in answer.matches]  # type: ignore[union-attr]


def test_a_collection_built_by_workers_is_compacted_by_itself_and_repaired_after_redis_was_emptied(
    start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str], settings: Settings,
    producer: Producer, images: Path, name: str,
) -> None:  # fmt: skip
    for _ in range(2):
        start_worker(AII_COMPACT_AFTER="6")
    # The collection holds other crops of the same pictures. Coarser codes than these cannot tell asset-5, a piece of
    # dark sky, from them: by IVF16,PQ8x4 it is the first in float32, and the second in bfloat16.
    how = ("--factory", "IVF4,PQ16x8", "--features", "int8", "--fpr", "0.02")
    built = aii(stack_environment, "index", "build", name, "--images", str(images), *how)
    assert built.returncode == 0, built.stderr
    assert "300 images (1 skipped)" in built.stdout
    assert "[truncated]" in built.stderr

    photos = crops(8, side=200)
    results = [producer.activate(p, asset_id=f"asset-{i}", collection=name).wait(LIMIT_S) for i, p in enumerate(photos)]
    wait_for(lambda: info(stack_environment, name)["generation"] > 1, "no worker compacted the journal")
    assert [r.asset_id for r in results if is_found(producer, r, name)] == [f"asset-{i}" for i in range(8)]
    answer: Any = producer.query(photos[3], collection=name).wait(LIMIT_S)
    assert (answer.matches[0].asset_id, answer.matches[0].distance < 0.01) == ("asset-3", True)  # by its stored feature
    assert (answer.assessment.reranked, answer.assessment.fpr) == ("int8", 0.02)
    assert answer.matches[0].probability == pytest.approx(1, abs=0.01)

    good_index(stack_environment, "remove", name, "asset-0", "asset-7")
    with connect_redis(settings) as client:
        client.flushall()
    repaired = good_index(stack_environment, "repair", name)
    assert "8 assets have a result document" in repaired
    assert good_index(stack_environment, "repair", name).endswith("0 were registered again, 0 removed again.\n")
    good_index(stack_environment, "compact", name)
    state = info(stack_environment, name)
    assert sum(part["count"] for part in state["segments"] if not part["distractors"]) == 306
    left = [f"asset-{i}" for i in range(1, 7)]  # a worker that had not read the removals follows the new generation
    wait_for(lambda: [r.asset_id for r in results if is_found(producer, r, name)] == left, "not what was left is found")
    assert "agree with their digests" in good_index(stack_environment, "verify", name)
    restored: Any = producer.query(photos[3], collection=name).wait(LIMIT_S)
    assert restored.matches[0].distance == answer.matches[0].distance


def test_removed_assets_come_back_when_they_are_activated_again(
    start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str], producer: Producer,
    images: Path, name: str,
) -> None:  # fmt: skip
    good_index(stack_environment, "build", name, "--images", str(images), "--factory", "IVF16,PQ8x4", "--here")
    start_worker()
    photo = images.parent / "mine.jpg"  # not among those of the collection, which would be as near as itself
    photo.write_bytes(crops(301)[300])
    command = ("activate", str(photo), "--collection", name, "--asset-id", "mine", "--meta", "licence=free")
    good(stack_environment, *command)
    result = producer.activate(photo, asset_id="mine", collection=name, meta={"licence": "free"}).wait(LIMIT_S)
    assert is_found(producer, result, name)
    good_index(stack_environment, "remove", name, "mine")
    assert not is_found(producer, result, name)
    assert "done before" not in good(stack_environment, *command)
    assert "done before" in good(stack_environment, *command)
    narrow = ("--where", "licence=free", "--nprobe", "16", "--json")
    narrowed = good(stack_environment, "query", str(photo), "--collection", name, *narrow)
    (match,) = json.loads(narrowed)["matches"]
    assert (match["asset_id"], match["meta"]) == ("mine", {"licence": "free"})
    bad = aii(stack_environment, "query", str(photo), "--where", "no key")
    assert (bad.returncode, "KEY=VALUE" in bad.stderr) == (2, True)


def test_an_audit_counts_the_images_that_another_codec_would_lose(
    start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str], producer: Producer,
    images: Path, name: str, tmp_path: Path,
) -> None:  # fmt: skip
    for built, factory in ((name, "IVF16,PQ8x4"), (f"{name}-2", "IVF4,PQ4x4")):
        good_index(stack_environment, "build", built, "--images", str(images), "--factory", factory, "--here")
    start_worker()
    for i, photo in enumerate(crops(6, side=200)):
        producer.activate(photo, asset_id=f"asset-{i}", collection=name).wait(LIMIT_S)
    table = tmp_path / "audit.csv"
    same = aii_here(stack_environment, "index", "audit", name, "--candidate", name, "--csv", str(table))
    assert (same.returncode, "Off their codes: 0 now, 0 with" in same.stdout) == (0, True), same.stdout + same.stderr
    assert table.read_text().splitlines()[0] == "asset_id,on_code,on_candidate"
    assert len(table.read_text().splitlines()) == 7
    good_index(stack_environment, "remove", name, "asset-0")
    other = aii_here(stack_environment, "index", "audit", name, "--candidate", f"{name}-2")
    assert "5 published images. Off their codes: 0 now" in other.stdout


def test_a_plan_names_an_index_its_cost_and_the_reasons(stack_environment: dict[str, str]) -> None:
    plan = json.loads(good_index(stack_environment, "plan", "--images", "1000000", "--json"))
    assert (plan["factory"], plan["code_bytes"]) == ("OPQ8_64,IVF1024,PQ8x8", 10)
    assert len(plan["reasons"]) == 3
    roomy = json.loads(good_index(stack_environment, "plan", "--images", "1000000", "--bytes", "40", "--json"))
    assert roomy["factory"] == "OPQ38_304,IVF1024,PQ38x8"
    said = good_index(stack_environment, "plan", "--images", "1000000", "--features", "int8", "--nprobe", "4")
    assert "features 516 bytes an image (int8), 492 MiB of these files" in said
    assert "nprobe 4" in said
    divided = good_index(stack_environment, "plan", "--images", "1000000000", "--memory", "16")
    assert "aii worker --shard 1/2" in divided
    refused = aii_here(stack_environment, "index", "plan", "--images", "1000000", "--ms", "0.000001")
    assert (refused.returncode, "are the least" in refused.stderr) == (1, True)


def test_upkeep_of_what_does_not_exist_is_refused(stack_environment: dict[str, str], producer: Producer) -> None:
    for command in (
        ("remove", "nothing", "asset"),
        ("compact", "nothing"),
        ("repair", "nothing"),
        ("verify", "nothing"),
    ):
        refused = aii_here(stack_environment, "index", *command)
        assert (refused.returncode, f"[{CollectionMissing.code}]" in refused.stderr) == (1, True)
