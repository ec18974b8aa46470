"""Images that are built and run with AII_TEST_ENGINE (`podman` or `docker`, or a program in their place).

AII_TEST_BASE names the base image, AII_TEST_BUILD further options of `build`, AII_TEST_RUN of `run`. AII_TEST_WORKER
names an image of workers that is there already, where building one takes too long.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.settings import Settings

__all__ = ["ROOT", "build", "built", "engine", "needs_engine", "run", "variables"]

ENGINE = os.environ.get("AII_TEST_ENGINE", "")
ROOT = Path(__file__).parents[2]

needs_engine = pytest.mark.skipif(not ENGINE, reason="AII_TEST_ENGINE names no engine: images are not built")


def engine(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([*shlex.split(ENGINE), *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert not check or done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def built(lock: str) -> str:
    """The image with the packages of a lock file."""
    ready = os.environ.get("AII_TEST_WORKER", "")
    if ready and lock == "worker-cpu":
        return ready
    base = os.environ.get("AII_TEST_BASE", "docker.io/library/python:3.11-slim")
    arguments = ["--build-arg", f"BASE={base}", "--build-arg", f"LOCK={lock}"]
    return build(f"aii-test-{lock}", ROOT / "deploy" / "Dockerfile", ROOT, *arguments)


def build(name: str, recipe: Path, folder: Path, *arguments: str) -> str:
    """The image that a recipe makes of a folder."""
    options = shlex.split(os.environ.get("AII_TEST_BUILD", ""))
    engine("build", *options, "-f", str(recipe), *arguments, "-t", name, str(folder))
    return name


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
