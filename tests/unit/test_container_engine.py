"""An engine for containers is looked for and tried; where none works, it is said what to install."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.engine import OWN, PYTHON, Engine, Unusable, find_compose, find_engine

Installed = Callable[[str, str], None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installed:
    """Adds a program, lines of a shell, to a machine that has none."""
    (programs := tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # and waits for no build beside
    for name in ("ENGINE", "BASE", "RUN", "COMPOSE"):
        monkeypatch.delenv(f"AII_TEST_{name}", raising=False)

    def install(name: str, lines: str) -> None:
        (program := programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(0o755)

    return install


@pytest.mark.usefixtures("installed")
def test_without_a_program_it_is_said_what_to_install() -> None:
    with pytest.raises(Unusable, match="apt-get install podman"):
        find_engine()


def test_the_first_that_runs_a_container_is_taken(installed: Installed) -> None:
    installed("podman", 'case $1 in run) echo "no such runtime" >&2; exit 125;; esac')
    installed("docker", "exit 0")
    assert find_engine() == Engine(("docker",), PYTHON)


def test_a_daemon_that_does_not_answer_is_named(installed: Installed) -> None:
    installed("docker", 'echo "Cannot connect to the Docker daemon" >&2; exit 1')
    with pytest.raises(Unusable, match=r"docker: version: Cannot connect to the Docker daemon; install"):
        find_engine()


def test_an_image_that_was_made_before_is_not_pulled(installed: Installed) -> None:
    installed("podman", f'case "$1 $3" in pull*|"image {PYTHON}") exit 1;; esac')
    assert find_engine() == Engine(("podman",), OWN)


def test_an_image_that_can_neither_be_found_nor_pulled_nor_made_is_named(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("podman", 'case $1 in image|pull) echo "no route to host" >&2; exit 1;; esac')
    with pytest.raises(Unusable, match=r"no route to host \(name an image by AII_TEST_BASE"):
        find_engine()
    monkeypatch.setenv("AII_TEST_BASE", "mine")
    with pytest.raises(Unusable, match=r"podman: pull mine: no route to host;"):
        find_engine()


def test_compose_is_the_engines_own_and_needs_the_images_of_others(installed: Installed) -> None:
    engine = Engine(("podman",), PYTHON)
    installed("podman", '[ "$1" != compose ] || { echo "unrecognized command" >&2; exit 125; }')
    with pytest.raises(Unusable, match="podman compose: version: unrecognized command; install docker-compose-plugin"):
        find_compose(engine, [])
    installed("podman", "case $1 in image|pull) exit 1;; esac")
    with pytest.raises(Unusable, match="pull redis: exit status 1"):
        find_compose(engine, ["redis"])
    installed("podman", "exit 0")
    assert find_compose(engine, ["redis"]) == ["podman", "compose"]
