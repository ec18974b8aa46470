"""Remembers which local files agreed with their digests, so that a process reads each of them once."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Final

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

    def agrees(self, path: Path, digest: str) -> bool:
        """Whether a file has this sha256; raises FileNotFoundError."""
        with path.open("rb") as file:
            stamp = _stamp(file.fileno())
            if self._stamps.get((path, digest)) == stamp:
                return True
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return False
            if time.time_ns() - stamp[-1] > _COARSE_NS and _stamp(file.fileno()) == stamp:
                self._remember(path, digest, stamp)
            return True

    def _remember(self, path: Path, digest: str, stamp: _Stamp) -> None:
        if len(self._stamps) >= _MOST:
            self._stamps.clear()
        self._stamps[path, digest] = stamp


def _stamp(descriptor: int) -> _Stamp:
    known = os.fstat(descriptor)
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns
