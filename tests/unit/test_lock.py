"""The lock files are those of pyproject.toml, and can be used with any index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = {
    "worker": ("worker",),
    "worker-cpu": ("worker",),
    "monitor": ("monitor",),
    "gateway": ("gateway",),
    "all": ("worker", "monitor", "gateway", "local", "evaluation", "dev"),
}
_ENTRY = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)(.*)$", re.MULTILINE)


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def locked(name: str) -> str:
    return (ROOT / "deploy" / "lock" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", list(EXTRAS))
def test_each_dependency_is_locked_within_its_bounds(name: str) -> None:
    versions: dict[str, list[str]] = {}
    for package, version, _ in _ENTRY.findall(locked(name)):
        versions.setdefault(canonicalize_name(package), []).append(version)
    outside = [
        str(requirement)
        for requirement in wanted(EXTRAS[name])
        if not any(requirement.specifier.contains(v) for v in versions.get(canonicalize_name(requirement.name), []))
    ]
    assert not outside, "run deploy/lock.sh"


@pytest.mark.parametrize("name", list(EXTRAS))
def test_each_locked_package_has_digests_and_none_an_address(name: str) -> None:
    text = locked(name)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
