"""`aii index retrain` on real images, with a worker that extracts and answers."""

from __future__ import annotations

import uuid
from pathlib import Path

from producer import Producer
from tasks.connection import connect_redis
from tasks.messages import QueryOptions
from tasks.settings import Settings
from tests.photographs import crops, photographs
from tests.stack import WorkerProcess, aii_here
from tests.waiting import LIMIT_S


def test_a_collection_is_trained_again_from_its_originals_while_a_worker_answers(
    shared_worker: WorkerProcess, stack_environment: dict[str, str], settings: Settings, producer: Producer,
    tmp_path: Path,
) -> None:  # fmt: skip
    name, listed = f"again-{uuid.uuid4().hex[:12]}", tmp_path / "off.csv"
    for i, data in enumerate(crops(64)):
        (tmp_path / f"{i:02d}.jpg").write_bytes(data)

    def index(*arguments: str) -> tuple[int, str]:
        done = aii_here(stack_environment, "index", *arguments)
        return done.returncode, done.stdout + done.stderr

    def first(path: Path) -> str:
        answer = producer.query(path, collection=name, options=QueryOptions(nprobe=4, top_k=1)).wait(LIMIT_S)
        return answer.matches[0].asset_id  # type: ignore[union-attr]

    assert index("build", name, "--images", str(tmp_path), "--factory", "IVF4,PQ8x4")[0] == 0
    result = producer.activate(photographs()["chelsea.png"], asset_id="cat", collection=name).wait(LIMIT_S)
    producer.download_protected(result, tmp_path / "protected.png")  # type: ignore[arg-type]
    asked = {path: first(path) for path in (tmp_path / "07.jpg", tmp_path / "protected.png")}
    assert asked[tmp_path / "protected.png"] == "cat"

    status, told = index("retrain", "starter")
    assert (status != 0, "`aii index build`" in told) == (True, True), told
    status, told = index("retrain", name, "--factory", "IVF8,PQ8x5", "--dry-run")
    assert (status, "65 originals, 1 jobs; 0 images have none" in told) == (0, True), told
    refused = ("retrain", name, "--factory", "IVF8,PQ8x5", "--sample", "3", "--least-gain", "1")
    status, told = index(*refused)
    assert (status, "(--least-gain)" in told, "Off their codes" in told) == (1, True, True), told
    with connect_redis(settings) as client:
        jobs = client.hget("aii:counts", "submitted")
        accepted = (*refused[:-1], "-1", "--accept-off", "1", "--csv", str(listed))
        status, told = index(*accepted)
        assert (status, "with IVF8,PQ8x5." in told) == (0, True), told
        assert "R@1 of 14 copies (protected), nprobe 16" in told or "(protected)" not in told
        assert client.hget("aii:counts", "submitted") == jobs, "its features were there from the run before"
    assert listed.read_text().splitlines()[0] == "asset_id"
    assert "IVF8,PQ8x5" in index("info", name)[1]
    assert {path: first(path) for path in asked} == asked
    status, told = index("rollback", name)
    assert (status, {path: first(path) for path in asked}) == (0, asked)
    assert "IVF4,PQ8x4" in index("info", name)[1]
