"""Pictures in folders and tar files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image

_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")


def pictures(path: Path) -> Iterator[Image.Image]:
    """The RGB pictures in a folder (with all below it) or in a tar file, in the order of their names."""
    return _in_folder(path) if path.is_dir() else _in_tar(path)


def _in_folder(folder: Path) -> Iterator[Image.Image]:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in _SUFFIXES:
            with Image.open(file) as picture:
                yield picture.convert("RGB")


def _in_tar(path: Path) -> Iterator[Image.Image]:
    with tarfile.open(path) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if member.name.lower().endswith(_SUFFIXES) and (file := tar.extractfile(member)):
                yield Image.open(io.BytesIO(file.read())).convert("RGB")
