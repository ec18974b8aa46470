"""compose.yaml as it is written: its services start in their order, do jobs, and are replaced while jobs are queued."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest
from pydantic import SecretStr

from producer import Producer
from producer.status import warm_workers
from tasks.ledger.states import JobState
from tasks.settings import Settings
from tests.containers.images import ROOT
from tests.photographs import crops
from tests.ports import reserved_port
from tests.waiting import LIMIT_S, wait_for

# `docker compose`, or a program in its place; AII_TEST_COMPOSE_UP replaces `--build` where the images are there.
COMPOSE = os.environ.get("AII_TEST_COMPOSE", "")
pytestmark = pytest.mark.skipif(not COMPOSE, reason="AII_TEST_COMPOSE names no compose: compose.yaml is not run")

UP = ("up", "--detach", *shlex.split(os.environ.get("AII_TEST_COMPOSE_UP", "--build")))
PORTS = ("AII_REDIS_PORT", "AII_S3_PORT", "AII_FLOWER_PORT", "AII_GATEWAY_PORT")
SECRETS = ("AII_REDIS_PASSWORD", "AII_S3_ACCESS_KEY", "AII_S3_SECRET_KEY", "AII_FLOWER_PASSWORD")

Compose = Callable[..., str]


@pytest.fixture
def given() -> dict[str, str]:
    """What the head of compose.yaml asks for."""
    return {name: str(reserved_port()) for name in PORTS} | {name: uuid4().hex for name in SECRETS}


@pytest.fixture
def compose(given: dict[str, str]) -> Iterator[Compose]:
    file = Path("deploy") / "compose.yaml"
    words = [*shlex.split(COMPOSE), "--project-name", f"aii-test-{uuid4().hex[:8]}", "--file", str(file)]

    def call(*arguments: str) -> str:
        command, environment = [*words, *arguments], os.environ | given
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2_000:]
        return done.stdout

    try:
        yield call
    finally:
        call("down", "--volumes", "--timeout", "60")


def answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_its_services_do_jobs_and_workers_are_replaced_without_losing_one(
    compose: Compose, given: dict[str, str]
) -> None:
    settings = Settings(
        redis_url=SecretStr(f"redis://:{given['AII_REDIS_PASSWORD']}@127.0.0.1:{given['AII_REDIS_PORT']}/0"),
        s3_endpoint=f"127.0.0.1:{given['AII_S3_PORT']}",
        s3_access_key=SecretStr(given["AII_S3_ACCESS_KEY"]),
        s3_secret_key=SecretStr(given["AII_S3_SECRET_KEY"]),
    )
    compose(*UP, "--scale", "worker=2")
    wait_for(lambda: len(warm_workers(settings)) == 2, lambda: compose("logs", "--tail", "20", "worker"))
    with Producer.connect(settings) as producer:
        photos = crops(40)
        jobs = [producer.activate(photo, asset_id=f"photo-{n}") for n, photo in enumerate(photos)]
        wait_for(lambda: any(job.state().closed for job in jobs), "no job ended")
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(compose, "kill", "--signal", "KILL", "--", "worker")
            while not killed.done():  # there is always more to do
                jobs.append(producer.activate(photos[1 + len(jobs) % (len(photos) - 1)], asset_id=f"photo-{len(jobs)}"))
                wait_for(lambda: killed.done() or jobs[-len(photos)].state().closed, "no job ended")
        killed.result()
        assert any(job.state() is JobState.RUNNING for job in jobs)
        compose(*UP, "--no-deps", "--force-recreate", "--scale", "worker=2", "worker")
        ended = dict(producer.wait_all(jobs, LIMIT_S))
        assert {result.status for result in ended.values()} <= {"activated", "passive"}
        assert len(ended) == len(jobs)
        assert producer.query(photos[0]).wait(LIMIT_S).matches[0].asset_id == "photo-0"
    assert compose("exec", "-T", "gateway", "aii", "tokens", "add", "shop", "--scope", "submit").startswith("aii_")
    for port, path in (("AII_GATEWAY_PORT", "health"), ("AII_FLOWER_PORT", "healthcheck")):
        wait_for(lambda where=f"http://127.0.0.1:{given[port]}/{path}": answers(where), f"{path} is not answered")
