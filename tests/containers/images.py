"""Images that are built, each once, and run.

AII_TEST_BUILD names further options of `build`, AII_TEST_RUN of `run`. AII_TEST_WORKER names an image of workers that
is there already, where building one takes too long.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from tasks.settings import Settings
from tests.containers.engine import CLOSED, Engine, one_at_a_time

__all__ = ["ROOT", "Images", "variables"]

ROOT = Path(__file__).parents[2]
_OF_AN_INDEX = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout")


class Images:
    """Builds and runs them with an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._built: dict[str, str] = {}

    def of(self, lock: str) -> str:
        """The image with the packages of a lock file."""
        ready = os.environ.get("AII_TEST_WORKER", "")
        if ready and lock == "worker-cpu":
            return ready
        if lock not in self._built:
            arguments = ["--build-arg", f"BASE={self._engine.base}", "--build-arg", f"LOCK={lock}"]
            self._built[lock] = self.build(f"aii-test-{lock}", ROOT / "deploy" / "Dockerfile", ROOT, *arguments)
        return self._built[lock]

    def build(self, name: str, recipe: Path, folder: Path, *arguments: str) -> str:
        """The image that a recipe makes of a folder."""
        options = ["--network", "host", *shlex.split(os.environ.get("AII_TEST_BUILD", ""))]
        with one_at_a_time("build"), pip_secrets() as secrets:
            self._engine("build", *options, *secrets, "-f", str(recipe), *arguments, "-t", name, str(folder))
        return name

    def run(self, image: str, environment: dict[str, str], *command: str, detached: bool = False) -> str:
        """What it prints; detached: its id."""
        options = [*shlex.split(os.environ.get("AII_TEST_RUN", "")), *CLOSED]
        options += [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        return self._engine("run", *(["-d"] if detached else ["--rm"]), *options, image, *command).strip()


@contextmanager
def pip_secrets() -> Iterator[list[str]]:
    """Options of `build` that let it use the index and the certificates that pip is configured with here."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = (line.partition("=") for line in listed.stdout.splitlines())
    found = {name.rpartition(".")[2]: ast.literal_eval(value)
             for name, _, value in sorted(pairs, reverse=True) if name.startswith((":env:.", "global."))}  # fmt: skip
    given = {name: found[name] for name in _OF_AN_INDEX if name in found}
    authorities = found.get("cert", "")
    if authorities:
        given["cert"] = "/run/secrets/authorities"
    with tempfile.TemporaryDirectory() as folder:
        parser = RawConfigParser()
        parser["global"] = given
        with (file := Path(folder) / "pip.conf").open("w") as output:
            parser.write(output)
        yield ["--secret", f"id=pip,src={file}",
               *(["--secret", f"id=authorities,src={authorities}"] if authorities else [])]  # fmt: skip


def variables(settings: Settings) -> dict[str, str]:
    """That lead a container to the session's Redis and S3."""
    secret = {name: getattr(settings, name) for name in ("redis_url", "s3_access_key", "s3_secret_key")}
    plain = {name: value.get_secret_value() for name, value in secret.items() if isinstance(value, SecretStr)}
    plain |= {"s3_endpoint": settings.s3_endpoint, "auto_repair": "0", "reconcile_every_s": "0.5"}
    return {f"AII_{name.upper()}": value for name, value in plain.items()}
