"""The lock files are those of pyproject.toml, and can be used with any index."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
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


# What an image's command imports at its start.
STARTED = {
    "monitor": ("deploy.flower.install", "tasks.app"),
    "gateway": ("producer.gateway.serve", "producer.hooks.deliver", "producer.ingest.bridge", "deploy.buckets.steps"),
}
_IMPORT = """
import sys
absent = set(sys.argv[1].split(","))
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
for module in sys.argv[2:]:
    __import__(module)
"""


@pytest.mark.parametrize("name", list(STARTED))
def test_the_parts_of_an_image_need_no_other_package_than_are_locked_for_it(name: str) -> None:
    there = {canonicalize_name(package) for package, _, _ in _ENTRY.findall(locked(name))} | {"active-image-indexing"}
    absent = [top for top, of in packages_distributions().items() if not there & {canonicalize_name(one) for one in of}]
    command = [sys.executable, "-c", _IMPORT, ",".join(absent), *STARTED[name]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-1_000:]
