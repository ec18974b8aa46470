"""The Dockerfile and the compose files name what exists, and their containers have no more rights than they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from producer.cli import aii
from tasks.settings import Settings
from tasks.state_folder import OTHER_VARIABLES
from tests.unit.test_reference import parse

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
GPU: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if str(service["image"]).startswith("aii-")}
KNOWN = {f"AII_{name.upper()}" for name in Settings.model_fields} | set(OTHER_VARIABLES)


def test_what_is_copied_into_an_image_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.replace("${LOCK}", "gateway").split():
            assert (DEPLOY.parent / source).exists(), source
            assert any(Path(source).match(f"{name}*") or source.startswith(f"{name}/") for name in allowed), source


def test_packages_are_installed_before_anything_of_the_project_is_copied() -> None:
    """A changed README installs nothing again."""
    packages, project = DOCKERFILE.split("AS packages")[1].split("AS project")
    assert "README.md" not in packages
    assert "deploy/lock/${LOCK}.txt" in packages
    assert "README.md" in project


@pytest.mark.parametrize("service", [*SERVICES.values(), *GPU.values()], ids=[*SERVICES, *(f"{n}-gpu" for n in GPU)])
def test_every_image_is_built_from_a_lock_that_exists(service: dict[str, Any]) -> None:
    lock = service.get("build", {}).get("args", {}).get("LOCK", "gateway")
    assert (DEPLOY / "lock" / f"{lock}.txt").is_file()


@pytest.mark.parametrize("name", OURS)
def test_our_containers_write_nothing_but_their_state_and_have_limits(name: str) -> None:
    service = OURS[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "tmpfs"} <= set(service)


def test_what_containers_print_does_not_fill_the_disk() -> None:
    assert [name for name, service in SERVICES.items() if "logging" not in service] == []


@pytest.mark.parametrize("name", OURS)
def test_their_commands_and_settings_exist(name: str) -> None:
    command = OURS[name].get("command", ["python", "-m", "workers"])
    if command[0] == "aii":
        parse(aii, ["any" if "$" in word else word for word in command[1:]])
    given = {key for key in OURS[name]["environment"] if key.startswith("AII_")}
    assert given - KNOWN == set()


@pytest.mark.parametrize("name", OURS)
def test_no_setting_is_empty_unless_the_caller_makes_it_so(name: str) -> None:
    """An empty setting ends the container."""
    assert [key for key, value in OURS[name]["environment"].items() if value is not None and ":-}" in value] == []


def test_a_worker_has_longer_to_end_than_it_takes_and_no_name_of_its_own() -> None:
    worker = SERVICES["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) > Settings.model_fields["stop_timeout_s"].default
    assert {"container_name", "hostname", "ports"}.isdisjoint(worker)  # it may be scaled
