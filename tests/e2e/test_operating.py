"""``aii status`` and ``aii jobs``, as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from producer import Producer
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source
from tests.photographs import crops
from tests.stack import AII, WorkerProcess, aii
from tests.waiting import LIMIT_S, wait_for
from workers.index.maintenance.starter import read_card

AWAY = {"AII_S3_ENDPOINT": "127.0.0.1:1"}


def environment(stack_environment: dict[str, str]) -> dict[str, str]:
    return dict(os.environ) | stack_environment


def failed(producer: Producer, name: str) -> str:
    request = ActivateRequest(collection="starter", source=Source(sha256="0" * 64, size=1), asset_id=name)
    producer.ledger.submit([request])
    producer.ledger.claim(request.job_id, request.queue, "token", "worker")
    producer.ledger.close(request.job_id, "token", JobState.FAILED, "truncated", "cut off")
    return request.job_id


def test_jobs_are_listed_by_state_and_without_one_all_that_is_open_or_failed(
    producer: Producer, stack_environment: dict[str, str]
) -> None:
    given = environment(stack_environment)
    bad, waiting = failed(producer, "scan-17"), producer.activate(crops(1)[0]).job_id
    listed = aii(given, "jobs", "list", "failed").stdout.splitlines()
    assert len(listed) == 1
    for word in (bad, "failed", "scan-17", "[truncated] cut off"):
        assert word in listed[0]
    everything = aii(given, "jobs", "list").stdout
    assert [line.split()[0] for line in everything.splitlines()] == [waiting, bad]
    assert aii(given, "jobs", "list", "done").stdout == ""
    assert aii(given, "jobs", "list", "ended").returncode == 2


def test_a_job_is_shown_cancelled_and_retried(producer: Producer, stack_environment: dict[str, str]) -> None:
    given = environment(stack_environment)
    job = producer.activate(crops(1)[0], asset_id=f"never-before-{uuid.uuid4().hex}")
    shown = aii(given, "jobs", "show", job.job_id)
    assert (shown.returncode, shown.stdout.count("\n")) == (0, 1)
    assert "was queued, and is cancelled" in aii(given, "jobs", "cancel", job.job_id).stderr
    line, _, document = aii(given, "jobs", "show", job.job_id).stdout.partition("\n")
    assert ("cancelled" in line, json.loads(document)["code"]) == (True, "cancelled")
    assert aii(given, "jobs", "cancel", job.job_id).returncode == 1
    assert "is queued again" in aii(given, "jobs", "retry", job.job_id).stderr
    assert job.state() is JobState.QUEUED
    again = aii(given, "jobs", "retry", job.job_id)
    assert (again.returncode, "[conflict]" in again.stderr) == (1, True)
    assert "[job_missing]" in aii(given, "jobs", "show", uuid.uuid4().hex).stderr


def test_status_tells_failures_latest_results_and_an_s3_that_is_away(
    producer: Producer, start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str]
) -> None:
    given = environment(stack_environment)
    worker = start_worker()
    photo = crops(1, side=160)[0]
    producer.activate(photo, asset_id="kept").wait(LIMIT_S)
    bad = producer.activate(photo[:700], asset_id="broken")
    wait_for(lambda: bad.state().closed)
    told = ("failure  truncated: 1", "result   kept: verified", "10 steps: p50")  # workers publish once a second

    def text_with_all() -> str:
        text = aii(given, "status").stdout
        return text if all(words in text for words in told) else ""

    text = wait_for(text_with_all, "not all of it is told")
    for words in (
        f"-{worker.pid}: cpu", "batches of up to", f"index    starter: {read_card().factory}, generation 1",
        "failure  truncated: 1 in 5 minutes", f"failed   {bad.job_id} [truncated] broken", "result   kept: verified",
        "paper    Activation, 10 steps: p50", "the paper 39.8 ms", "paper    Search: none lately; the paper 0.42 ms",
    ):  # fmt: skip
        assert words in text, text
    view = json.loads(aii(given, "status", "--json").stdout)
    assert ([r["asset_id"] for r in view["results"]], view["s3_problem"]) == (["kept"], None)

    without = aii(given | AWAY, "status")
    assert (without.returncode, "S3       S3 at 127.0.0.1:1 does not answer" in without.stdout) == (3, True)
    assert "jobs     0 running; 1 done and 1 failed" in without.stdout


def test_a_watch_survives_a_redis_that_is_away(stack_environment: dict[str, str], tmp_path: Path) -> None:
    given = environment(stack_environment) | {"AII_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert aii(given, "status").returncode == 3
    command = [*AII, "status", "--watch"]
    said = tmp_path / "said"
    with said.open("w") as output:
        process = subprocess.Popen(command, env=given, stdout=output, stderr=output)
    try:
        wait_for(lambda: said.read_text().count("[redis_unavailable]") >= 2, "it does not go on watching")
    finally:
        process.terminate()
        process.wait(LIMIT_S)
