"""compose.yaml as it is written: its services start in their order, do jobs, and are replaced while jobs are queued."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest
import yaml
from pydantic import SecretStr

from producer import Producer
from producer.status import warm_workers
from tasks.ledger.states import JobState
from tasks.settings import Settings
from tests.containers.engine import Engine, Unusable, find_compose
from tests.containers.images import ROOT, Images
from tests.photographs import crops
from tests.ports import reserved_port
from tests.waiting import LIMIT_S, wait_for

FILE = ROOT / "deploy" / "compose.yaml"
UP = ("up", "--detach", "--no-build")
PORTS = ("AII_REDIS_PORT", "AII_S3_PORT", "AII_FLOWER_PORT", "AII_GATEWAY_PORT")
SECRETS = ("AII_REDIS_PASSWORD", "AII_S3_ACCESS_KEY", "AII_S3_SECRET_KEY", "AII_FLOWER_PASSWORD")

Compose = Callable[..., str]


@pytest.fixture
def given() -> dict[str, str]:
    """What the head of compose.yaml asks for."""
    return {name: str(reserved_port()) for name in PORTS} | {name: uuid4().hex for name in SECRETS}


@pytest.fixture
def program(engine: Engine) -> list[str]:
    """Compose, once the images that are not ours are there."""
    of_others = [
        os.environ.get(name, image) for name, image in re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", FILE.read_text())
    ]
    try:
        return find_compose(engine, of_others)
    except Unusable as error:
        if os.environ.get("AII_TEST_COMPOSE"):
            raise  # what was asked for is not skipped
        pytest.skip(str(error))


@pytest.fixture
def compose(program: list[str], images: Images, given: dict[str, str], tmp_path: Path) -> Iterator[Compose]:
    (ours := tmp_path / "images.yaml").write_text(with_images(images))
    words = [*program, "--project-name", f"aii-test-{uuid4().hex[:8]}", "--file", str(FILE), "--file", str(ours)]

    def call(*arguments: str) -> str:
        command, environment = [*words, *arguments], os.environ | given
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2_000:]
        return done.stdout

    try:
        yield call
    finally:
        call("down", "--volumes", "--timeout", "60")


def with_images(images: Images) -> str:
    """A further file that gives our services the images of tests, and leaves alone those that an operator has built."""
    services = yaml.safe_load(FILE.read_text())["services"]
    locks = {service["image"]: service["build"]["args"]["LOCK"] for service in services.values() if "build" in service}
    ours = {name: {"image": images.of(locks[service["image"]]), "pull_policy": "never"}
            for name, service in services.items() if service["image"] in locks}  # fmt: skip
    return yaml.safe_dump({"services": ours})


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
