"""The images are built and run: with AII_TEST_ENGINE (`podman` or `docker`, or a program in their place).

AII_TEST_BASE names the base image, AII_TEST_BUILD further options of `build`, AII_TEST_RUN of `run`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from producer import Producer
from producer.status import warm_workers
from tasks.settings import Settings
from tests.photographs import crops
from tests.waiting import LIMIT_S, wait_for

ENGINE = os.environ.get("AII_TEST_ENGINE", "")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not ENGINE, reason="AII_TEST_ENGINE names no engine: images are not built")


def engine(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([*shlex.split(ENGINE), *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert not check or done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def built(lock: str) -> str:
    base = os.environ.get("AII_TEST_BASE", "docker.io/library/python:3.11-slim")
    options = shlex.split(os.environ.get("AII_TEST_BUILD", ""))
    engine("build", *options, "-f", "deploy/Dockerfile", "--build-arg", f"BASE={base}", "--build-arg", f"LOCK={lock}",
           "-t", f"aii-test-{lock}", ".")  # fmt: skip
    return f"aii-test-{lock}"


def run(image: str, environment: dict[str, str], *command: str, detached: bool = False) -> str:
    """As any user of group 0, without rights, on a read-only root."""
    options = shlex.split(os.environ.get("AII_TEST_RUN", ""))
    options += ["--read-only", "--cap-drop", "all", "--user", "12345:0", "--tmpfs", "/tmp", "--network", "host"]
    options += [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    return engine("run", *(["-d"] if detached else ["--rm"]), *options, image, *command).strip()


def variables(settings: Settings) -> dict[str, str]:
    """That lead a container to the session's Redis and S3."""
    secret = {name: getattr(settings, name) for name in ("redis_url", "s3_access_key", "s3_secret_key")}
    plain = {name: value.get_secret_value() for name, value in secret.items() if isinstance(value, SecretStr)}
    plain |= {"s3_endpoint": settings.s3_endpoint, "auto_repair": "0", "reconcile_every_s": "0.5"}
    return {f"AII_{name.upper()}": value for name, value in plain.items()}


def test_workers_of_one_host_name_do_jobs_are_killed_and_stopped_without_losing_one(settings: Settings) -> None:
    image, given = built("worker-cpu"), variables(settings) | {"AII_LEASE_S": "10", "AII_GRACE_S": "2"}
    workers = [run(image, given, detached=True) for _ in range(2)]
    try:
        with Producer.connect(settings) as producer:
            wait_for(lambda: len(warm_workers(settings)) == 2, "two workers did not get ready")
            jobs = [producer.activate(crop, options={"steps": 1}) for crop in crops(40)]
            wait_for(lambda: any(job.state().closed for job in jobs), "no job ended")
            engine("kill", workers[0])
            assert len(dict(producer.wait_all(jobs, LIMIT_S))) == len(jobs)
            engine("stop", "-t", "60", workers[1])
            assert engine("inspect", "--format", "{{.State.ExitCode}}", workers[1]).strip() == "0"
    finally:
        for worker in workers:
            engine("rm", "-f", worker, check=False)


def test_the_gateways_image_administers_buckets_as_any_user(settings: Settings) -> None:
    assert "results" in run(built("gateway"), variables(settings), "aii", "buckets", "init")
