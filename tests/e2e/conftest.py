"""What several commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

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
