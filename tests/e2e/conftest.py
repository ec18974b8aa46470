"""What several commands are tried on, and the dashboard in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.settings import Settings
from tests.browser import Browser, browser_program
from tests.flower import Flower
from tests.photographs import crops


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """300 small photographs, and a file that was cut off."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i, data in enumerate(crops(300)):
        (folder / f"{i:03d}.jpg").write_bytes(data)
    (folder / "broken.jpg").write_bytes(crops(1)[0][:900])
    return folder


@pytest.fixture
def flower(stack_environment: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Flower]:
    """A Flower over an emptied Redis; see also :func:`browser`."""
    pytest.importorskip("flower")
    flower = Flower(dict(os.environ) | stack_environment, tmp_path / "flower.log").wait_until_ready()
    yield flower
    flower.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser of its own; the test is skipped where none is installed."""
    program = browser_program()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed")
    browser = Browser(program, tmp_path / "profile")
    yield browser
    browser.close()
