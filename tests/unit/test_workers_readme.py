"""What the README of `workers` says of files, layers and kinds of jobs is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "workers"
TEXT = (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)", TEXT))))
def test_what_it_links_to_exists(link: str) -> None:
    assert (FOLDER / link).exists()


def test_its_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["workers"])
    checked = [{name.strip() for name in layer.split("|")} for layer in layers if layer != "__main__"]
    rows = re.findall(r"^\| (.+?) \|", TEXT[TEXT.index("## Layers") :], re.MULTILINE)[1:]
    named = [{name.removesuffix(".py").strip("/") for name in re.findall(r"`([^`]+)`", row)} for row in rows]
    assert named == checked
