"""Our page inside Flower, on the running stack."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producer import Producer
from tasks.connection import connect_redis
from tasks.monitoring.metrics import Counters, Failure, Metrics
from tasks.names import TASK_ACTIVATE
from tasks.results import ActivationResult
from tasks.settings import Settings
from tests.flower import Flower
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for


@pytest.fixture
def start_flower(
    stack_environment: dict[str, str], settings: Settings, tmp_path: Path
) -> Iterator[Callable[..., Flower]]:
    """Starts Flowers that end with the test."""
    pytest.importorskip("flower")
    started: list[Flower] = []

    def start(**options: str) -> Flower:
        started.append(Flower(dict(os.environ) | stack_environment, tmp_path / "flower.log", **options))
        return started[-1].wait_until_ready()

    yield start
    for flower in started:
        flower.stop()


@pytest.fixture
def flower(start_flower: Callable[..., Flower]) -> Flower:
    return start_flower()


def published(view: dict[str, Any]) -> int:
    """Jobs that workers have published figures of; they do so a moment after a job's end."""
    (activated,) = [s["count"] for s in view["stages"] if s["stage"] == "total"] or [0]
    return activated + sum(failure["count"] for failure in view["failures"])


def test_the_page_agrees_with_the_result_documents_and_shows_what_failed(
    flower: Flower, start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    worker = start_worker()
    photos = crops(8, side=160)
    results = [producer.activate(photo).wait(LIMIT_S) for photo in photos]
    bad = producer.activate(photos[0][:700])
    wait_for(lambda: bad.state().closed, "the damaged image did not end")
    view = wait_for(lambda: v if published(v := flower.overview()) == 9 else None, "the page does not follow")
    for stage in ("decode", "optimise", "upload", "total"):
        documents = [r.provenance.timings_ms[stage] for r in results if isinstance(r, ActivationResult)]
        (shown,) = (s for s in view["stages"] if (s["task"], s["stage"]) == ("aii.activate", stage))
        assert shown["count"] == 8
        assert shown["mean_ms"] == pytest.approx(sum(documents) / 8, rel=0.01)
        assert min(documents) * 0.93 <= shown["p50_ms"] <= max(documents) * 1.07
    assert (view["failures"][0]["code"], view["failures"][0]["count"]) == ("truncated", 1)
    assert view["workers"][0]["pid"] == worker.pid
    wait_for(lambda: len(flower.overview()["results"]) == 8, "the results do not follow")
    collection = wait_for(lambda: flower.overview()["collections"], "no collection is shown")[0]
    assert (collection["name"], collection["vectors"]) == ("starter", 39_998 + 1_024)  # references and plain images
    assert {r["job_id"] for r in flower.overview()["results"]} == {r.job_id for r in results}
    for which in ("original", "protected", "difference"):
        assert flower.get(f"/activations/picture/{which}/{results[0].job_id}")[1][:3] == b"\xff\xd8\xff"
    assert json.loads(flower.get(f"/activations/result/{results[0].job_id}")[1])["status"] == "activated"
    for counted in ('aii_activation_seconds_count{stage="total"} 8.0', 'aii_failures_total{code="truncated"} 1.0'):
        wait_for(lambda line=counted: line in flower.get("/metrics")[1].decode(), "the totals do not follow")

    assert flower.get(f"/activations/retry/{bad.job_id}", method="POST")[0] == 200
    wait_for(lambda: producer.ledger.get(bad.job_id).attempts == 1 and bad.state().closed, "it was not tried again")
    status, body = flower.get(f"/activations/retry/{results[0].job_id}", method="POST")
    assert (status, json.loads(body)["code"]) == (409, "conflict")
    assert flower.get(f"/activations/retry/{bad.job_id}", method="POST", Origin="http://elsewhere")[0] == 403


def test_the_page_has_its_tab_everywhere_and_is_shown_to_who_knows_the_password_only(flower: Flower) -> None:
    for page in ("/activations", "/tasks", "/broker"):
        status, body = flower.get(page)
        assert (status, b">Activations</a>" in body) == (200, True)
    job = uuid.uuid4().hex
    reading = ("", "/overview.json", "/health.json", "/history.json", "/jobs", "/jobs.json", "/operations")
    for path in (*reading, f"/job/{job}", f"/result/{job}", f"/picture/original/{job}", f"/pair/query/{job}"):
        assert flower.get(f"/activations{path}", login=False)[0] == 401, path
    for path in (f"retry/{job}", f"cancel/{job}", f"feedback/reject/{job}", "dead/drop/1-0", "dead/resend/1-0"):
        assert flower.get(f"/activations/{path}", login=False, method="POST")[0] in (401, 403), path
    assert flower.get(f"/activations/result/{job}")[0] == 404
    assert flower.get(f"/activations/retry/{job}", method="POST")[0] == 404
    assert flower.get(f"/activations/job/{job}")[0] == 404
    status, _, headers = flower.ask("/activations/overview.json", login=False)
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="flower"')
    for page in ("/activations", "/tasks", "/activations/overview.json"):
        assert flower.ask(page)[2]["x-frame-options"] == "DENY"
    view = flower.overview()
    assert (view["workers"], view["stages"], view["results"], view["s3_problem"]) == ([], [], [], None)
    status, body, headers = flower.ask(f"/activations/picture/original/{job}")
    assert (status, body[:3], headers["cache-control"]) == (200, b"\xff\xd8\xff", "no-store")


def test_a_flower_that_is_for_looking_only_retries_nothing(
    start_flower: Callable[..., Flower], producer: Producer
) -> None:
    flower = start_flower(read_only="true")
    job = producer.activate(crops(1)[0])
    for path in ("retry", "cancel", "feedback/confirm"):
        assert flower.get(f"/activations/{path}/{job.job_id}", method="POST")[0] == 403
    assert flower.get("/activations/dead/drop/1-0", method="POST")[0] == 403
    assert b"data-read-only" in flower.get("/activations")[1]


def test_a_restart_of_flower_loses_no_figure(start_flower: Callable[..., Flower], settings: Settings) -> None:
    job_id = uuid.uuid4().hex
    with connect_redis(settings) as client:
        counted = Counters()
        counted.observe(TASK_ACTIVATE, "total", 50.0)
        counted.outcomes[TASK_ACTIVATE, "activated"] = 1
        Metrics(client).publish(counted, [Failure("truncated", "cut off", job_id, time.time())], [job_id])
    first = start_flower()
    before, figures = first.overview(), exposed(first)
    first.stop()
    second = start_flower()
    after = second.overview()
    for name in ("stages", "comparisons", "quality", "failures", "latest", "counts"):
        assert after[name] == before[name], name
    assert exposed(second) == figures
    noted = [point["at"] for point in before["history"] if point["waiting"] is not None]
    assert {point["at"] for point in after["history"] if point["waiting"] is not None} >= set(noted)


def exposed(flower: Flower) -> set[str]:
    """What Prometheus is told of jobs and their times."""
    text = wait_for(lambda: t if "aii_up 1.0" in (t := flower.get("/metrics")[1].decode()) else "")
    return set(re.findall(r"^aii_(?:activation|jobs|failures).*$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("password", "said"), [("", "Set AII_FLOWER_PASSWORD"), ("a,b", "cannot hold a comma"), ("geheim é", "ASCII")]
)
def test_flower_does_not_start_with_a_password_that_it_cannot_check(password: str, said: str) -> None:
    command, environment = [sys.executable, "-m", "deploy.flower"], os.environ | {"AII_FLOWER_PASSWORD": password}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr
