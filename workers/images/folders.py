"""Image files in folders and tar files."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["image_files"]

_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")


def image_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """``(name, bytes)`` of the files in a folder (with all below it) or a tar file that are named like images, in the
    order of their names."""
    return _in_folder(path) if path.is_dir() else _in_tar(path)


def _in_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        if file.name.lower().endswith(_SUFFIXES) and file.is_file():
            yield str(file.relative_to(folder)), file.read_bytes()


def _in_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if member.name.lower().endswith(_SUFFIXES) and (file := tar.extractfile(member)):
                yield member.name, file.read()
