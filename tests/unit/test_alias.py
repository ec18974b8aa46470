"""`active_image_indexing`: the producer in a project that has a `tasks` and a `producer` of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROGRAM = """
import sys, tasks, producer
from active_image_indexing import ActivationOptions, AsyncProducer, Producer, errors
from active_image_indexing.producer.testing import FakeProducer
from active_image_indexing.tasks.schemas import schemas

assert (tasks.MINE, producer.MINE) == (1, 2)
assert {name for name in sys.modules if name.split(".")[0] in ("tasks", "producer")} == {"tasks", "producer"}
result = FakeProducer().activate(b"\\xff\\xd8\\xff", asset_id="a").wait()
assert isinstance(FakeProducer(), Producer) and result.asset_id == "a" and schemas()
try:
    ActivationOptions(steps=0)
except errors.InvalidRequest:
    print("used")
"""


def run(project: Path, *places: Path) -> str:
    """Run the program in a project whose own modules come first, with our packages in `places` only."""
    (project / "tasks.py").write_text("MINE = 1")
    (project / "producer.py").write_text("MINE = 2")
    (project / "program.py").write_text(PROGRAM)
    script = (
        f"import sys; sys.path[:0] = {[str(project), *map(str, places)]!r}; import runpy; runpy.run_path('program.py')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_used_from_a_checkout(tmp_path: Path) -> None:
    assert run(tmp_path, Path("producer/alias").resolve()) == "used\n"


def test_it_is_used_from_an_installation(tmp_path: Path) -> None:
    source, wheels, site = tmp_path / "source", tmp_path / "wheels", tmp_path / "site"
    for package in ("producer", "tasks"):  # a build leaves its files in the folder that it is of
        shutil.copytree(package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(file, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    built = subprocess.run([*build, str(source)], capture_output=True, text=True, check=False)
    if "setuptools.build_meta" in built.stderr:
        pytest.skip("setuptools, which builds the package, is not installed here")
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    assert (site / "active_image_indexing" / "py.typed").is_file()
    assert (site / "tasks" / "schemas" / "vectors.json").is_file()
    assert not (site / "producer" / "alias").exists()
    project = tmp_path / "project"
    project.mkdir()
    assert run(project, site) == "used\n"
