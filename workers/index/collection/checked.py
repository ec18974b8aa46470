"""Remembers which local files were found to be what they are named for, so that a process reads each of them once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["CheckedFiles"]

# A file that was changed less than this before it was read may be changed again without another time of change.
_COARSE_NS: Final = 2_000_000_000
_MOST: Final = 10_000

# Device, inode, size, and time of change.
_Stamp = tuple[int, int, int, int]


class CheckedFiles:
    """A file is read again when another one has taken its place, or its size or time of change is another. Damage of a
    disk is told by the next process only. Thread-safe."""

    def __init__(self) -> None:
        self._stamps: dict[tuple[Path, str], _Stamp] = {}

    def agrees(self, path: Path, name: str, is_right: Callable[[BinaryIO], bool] | None = None) -> bool:
        """Whether a file is what it is named for; raises FileNotFoundError.

        Args:
            is_right: tells by reading the file; by default, the name is its sha256.
        """
        with path.open("rb") as file:
            stamp = _stamp(file.fileno())
            if self._stamps.get((path, name)) == stamp:
                return True
            if not (is_right(file) if is_right else hashlib.file_digest(file, "sha256").hexdigest() == name):
                return False
            if time.time_ns() - stamp[-1] > _COARSE_NS and _stamp(file.fileno()) == stamp:
                self._remember(path, name, stamp)
            return True

    def _remember(self, path: Path, name: str, stamp: _Stamp) -> None:
        if len(self._stamps) >= _MOST:
            self._stamps.clear()
        self._stamps[path, name] = stamp


def _stamp(descriptor: int) -> _Stamp:
    known = os.fstat(descriptor)
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns
