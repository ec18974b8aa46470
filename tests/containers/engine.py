"""The program that builds and runs containers, the image that ours are based on, and compose.

AII_TEST_ENGINE, AII_TEST_BASE and AII_TEST_COMPOSE name them; what is not named is looked for and tried. Where
nothing works, the tests are skipped and say what to install. AII_TEST_ENGINE=none skips them anyway.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Engine", "Unusable", "find_compose", "find_engine", "one_at_a_time"]

PYTHON = "docker.io/library/python:3.11-slim"
OWN = "localhost/aii-test-base"
# As any user of group 0, without rights, on a read-only root: so ours run, and so an engine has to be able to.
CLOSED = ("--read-only", "--cap-drop", "all", "--user", "12345:0", "--tmpfs", "/tmp", "--network", "host")
_TRIAL = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"
_ROOT = Path(__file__).parents[2]
_PACKAGES = "python3,python3-venv,ca-certificates"
_INSTALL = "install podman, or Docker with its daemon (Debian: apt-get install podman)"
_INSTALL_COMPOSE = "install docker-compose-plugin, or for podman 4.7 or newer podman-compose"


class Unusable(Exception):
    """Says what does not work, and what would help."""


@dataclass(frozen=True)
class Engine:
    """A program that builds and runs containers.

    Attributes:
        words: the program, with options that it is always given.
        base: the image with Python that ours are based on; it has run a container.
    """

    words: tuple[str, ...]
    base: str

    @property
    def is_podman(self) -> bool:
        return "podman" in " ".join(self.words)

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """What the program prints."""
        done = _called(self.words, *arguments)
        assert not check or done.returncode == 0, done.stderr[-2_000:]
        return done.stdout


def find_engine() -> Engine:
    """Raises Unusable where there is none."""
    named = os.environ.get("AII_TEST_ENGINE", "")
    if named == "none":
        raise Unusable("AII_TEST_ENGINE is none")
    programs = [shlex.split(named)] if named else [[name] for name in ("podman", "docker") if shutil.which(name)]
    reasons = []
    for words in programs:
        try:
            with one_at_a_time("find"):
                return _tried(words)
        except Unusable as error:
            reasons.append(f"{shlex.join(words)}: {error}")
    raise Unusable("; ".join([*reasons, _INSTALL]))


def _tried(words: Sequence[str]) -> Engine:
    _required(words, "version")  # docker's asks its daemon
    base = _base(words, os.environ.get("AII_TEST_BASE", ""))
    options = shlex.split(os.environ.get("AII_TEST_RUN", ""))
    _required(words, "run", "--rm", *options, *CLOSED, base, "python3", "-c", _TRIAL)
    return Engine(tuple(words), base)


def _base(words: Sequence[str], named: str) -> str:
    """An image that is there, or can be pulled or made."""
    for image in [named] if named else [PYTHON, OWN]:
        if _is_there(words, image):
            return image
    try:
        _required(words, "pull", named or PYTHON)
    except Unusable as error:
        if named:
            raise
        return _made(words, str(error))
    return named or PYTHON


def _made(words: Sequence[str], why: str) -> str:
    """Of Debian's own packages, where this is a Debian."""
    system = platform.freedesktop_os_release() if platform.system() == "Linux" else {}
    if not (shutil.which("mmdebstrap") and system.get("ID") == "debian"):
        raise Unusable(f"{why} (name an image by AII_TEST_BASE, or on Debian apt-get install mmdebstrap to make one)")
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/base.tar"
        _required(["mmdebstrap"], "--variant=minbase", f"--include={_PACKAGES}", system["VERSION_CODENAME"], archive)
        _required(words, "import", archive, OWN)
    return OWN


def find_compose(engine: Engine, images: Sequence[str]) -> list[str]:
    """A program that runs compose files of these images of others. Raises Unusable where there is none, or no
    image."""
    named = os.environ.get("AII_TEST_COMPOSE", "")
    words = shlex.split(named) if named else [*engine.words, "compose"]
    try:
        _required(words, "version")
    except Unusable as error:
        raise Unusable(f"{shlex.join(words)}: {error}; {_INSTALL_COMPOSE}") from error
    with one_at_a_time("find"):
        for image in images:
            if not _is_there(engine.words, image):
                _required(engine.words, "pull", image)
    return words


def _is_there(words: Sequence[str], image: str) -> bool:
    return _called(words, "image", "inspect", image).returncode == 0


def _required(words: Sequence[str], *arguments: str) -> None:
    done = _called(words, *arguments)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unusable(f"{' '.join(arguments[:2])}: {said[-1][:300]}")


def _called(words: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*words, *arguments], capture_output=True, text=True, cwd=_ROOT, check=False)


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Several processes of pytest pull, make and build each image once: the second finds it."""
    with (Path(tempfile.gettempdir()) / f"aii-test-{what}-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
