"""What a worker and Flower say while Redis and S3 are gone, or silent."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tasks.connection import connect_redis
from tests.flower import Flower
from tests.health import probe
from tests.ports import reserved_port
from tests.stack import WorkerProcess, running_stack, settings_of
from tests.waiting import wait_for


def missing(port: int) -> dict[str, str]:
    status, body = probe(port, "/ready")
    return json.loads(body)["missing"] if status else {"port": "closed"}  # type: ignore[no-any-return]


def test_a_worker_without_redis_and_s3_is_alive_and_says_what_is_missing(tmp_path: Path) -> None:
    port = reserved_port()
    with running_stack(tmp_path) as environment:
        given = environment | {"AII_METRICS_PORT": str(port)}
        worker = WorkerProcess(given, settings_of(tmp_path), tmp_path / "worker.log", "query,activate")
        try:
            wait_for(lambda: "start" in missing(port), "it says nothing while it starts")
            assert probe(port, "/live")[0] == 200
            worker.wait_until_ready()
            wait_for(lambda: missing(port) == {}, "it does not get ready")
            assert "aii_jobs_total" in probe(port, "/metrics")[1]
        except BaseException:
            worker.kill()
            raise
    try:
        assert set(missing(port)) == {"redis", "s3"}
        assert (probe(port, "/live")[0], worker.alive()) == (200, True)
    finally:
        worker.kill()


def test_flower_goes_on_answering_while_redis_is_silent_on_open_connections(tmp_path: Path) -> None:
    pytest.importorskip("flower")
    with running_stack(tmp_path) as environment, connect_redis(settings_of(tmp_path)) as client:
        redis_pid = int(client.info()["process_id"])
        flower = Flower(environment, tmp_path / "flower.log").wait_until_ready()
        try:
            os.kill(redis_pid, signal.SIGSTOP)
            wait_for(lambda: "\naii_up 0.0" in flower.get("/metrics")[1].decode(), "it pretends to know")
            status, body = flower.get("/activations/overview.json")
            assert (status, json.loads(body)["code"]) == (503, "redis_unavailable")
            assert flower.get("/activations")[0] == 200
            os.kill(redis_pid, signal.SIGCONT)
            wait_for(lambda: flower.get("/activations/overview.json")[0] == 200, "it does not come back")
        finally:
            os.kill(redis_pid, signal.SIGCONT)
            flower.stop()
