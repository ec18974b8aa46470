"""Our page inside Flower, on the running stack."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.stack import free_port
from producer import Producer
from tasks.results import ActivationResult
from tasks.settings import Settings
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import wait_for


class Flower:
    """A real Flower, in a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.port = free_port(5600)
        self._login = base64.b64encode(b"operator:open sesame").decode()
        own = {"AII_FLOWER_PORT": str(self.port), "AII_FLOWER_PASSWORD": "open sesame"}
        self._log = log.open("w")
        command = [sys.executable, "-m", "deploy.flower"]
        self._process = subprocess.Popen(command, env=environment | own, stdout=self._log, stderr=self._log)

    def get(self, path: str, *, login: bool = True, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        if login:
            headers["Authorization"] = f"Basic {self._login}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def overview(self) -> dict[str, Any]:
        return json.loads(self.get("/activations/overview.json")[1])  # type: ignore[no-any-return]

    def answers(self) -> bool:
        try:
            return self.get("/healthcheck")[0] == 200
        except OSError:
            return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture
def flower(stack_environment: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Flower]:
    pytest.importorskip("flower")
    flower = Flower(dict(os.environ) | stack_environment, tmp_path / "flower.log")
    wait_for(flower.answers, "Flower did not start")
    yield flower
    flower.stop()


def published(view: dict[str, Any]) -> int:
    """Jobs that workers have published figures of; they do so a moment after a job's end."""
    (activated,) = [s["count"] for s in view["stages"] if s["stage"] == "total"] or [0]
    return activated + sum(failure["count"] for failure in view["failures"])


def test_the_page_agrees_with_the_result_documents_and_shows_what_failed(
    flower: Flower, start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    worker = start_worker()
    photos = crops(12, side=160)
    results = [producer.activate(photo).wait(60) for photo in photos]
    bad = producer.activate(photos[0][:700])
    wait_for(lambda: bad.state().closed, "the damaged image did not end")
    view = wait_for(lambda: v if published(v := flower.overview()) == 13 else None, "the page does not follow")
    for stage in ("decode", "optimise", "upload", "total"):
        documents = [r.provenance.timings_ms[stage] for r in results if isinstance(r, ActivationResult)]
        (shown,) = (s for s in view["stages"] if (s["task"], s["stage"]) == ("aii.activate", stage))
        assert shown["count"] == 12
        assert shown["mean_ms"] == pytest.approx(sum(documents) / 12, rel=0.01)
        assert min(documents) * 0.93 <= shown["p50_ms"] <= max(documents) * 1.07
    assert (view["failures"][0]["code"], view["failures"][0]["count"]) == ("truncated", 1)
    assert view["workers"][0]["pid"] == worker.pid
    collection = wait_for(lambda: flower.overview()["collections"], "no collection is shown")[0]
    assert (collection["name"], collection["vectors"]) == ("starter", 39_998)
    assert {r["job_id"] for r in view["results"]} == {r.job_id for r in results}
    for which in ("original", "protected", "difference"):
        assert flower.get(f"/activations/picture/{which}/{results[0].job_id}")[1][:3] == b"\xff\xd8\xff"
    assert json.loads(flower.get(f"/activations/result/{results[0].job_id}")[1])["status"] == "activated"
    metrics = flower.get("/metrics")[1].decode()
    assert 'aii_activation_seconds_count{stage="total"} 12.0' in metrics
    assert 'aii_failures_total{code="truncated"} 1.0' in metrics

    assert flower.get(f"/activations/retry/{bad.job_id}", method="POST")[0] == 200
    wait_for(lambda: producer.ledger.get(bad.job_id).attempts == 1 and bad.state().closed, "it was not tried again")
    status, body = flower.get(f"/activations/retry/{results[0].job_id}", method="POST")
    assert (status, json.loads(body)["code"]) == (409, "conflict")
    assert flower.get(f"/activations/retry/{bad.job_id}", method="POST", Origin="http://elsewhere")[0] == 403


def test_the_page_has_its_tab_everywhere_and_is_shown_to_who_knows_the_password_only(flower: Flower) -> None:
    for page in ("/activations", "/tasks", "/broker"):
        status, body = flower.get(page)
        assert (status, b">Activations</a>" in body) == (200, True)
    job = "0" * 32
    for path in ("", "/overview.json", f"/result/{job}", f"/picture/original/{job}"):
        assert flower.get(f"/activations{path}", login=False)[0] == 401
    assert flower.get(f"/activations/retry/{job}", login=False, method="POST")[0] in (401, 403)
    assert flower.get(f"/activations/result/{job}")[0] == 404
    assert flower.get(f"/activations/retry/{job}", method="POST")[0] == 404
    view = flower.overview()
    assert (view["workers"], view["stages"], view["results"]) == ([], [], [])
