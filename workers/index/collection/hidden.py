"""Hidden entries of a segment: files of the positions that later changes replaced or removed (int64, npy)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.errors import CorruptSegment

__all__ = ["not_hidden", "read_hidden", "write_hidden"]


def write_hidden(path: Path, positions: npt.NDArray[np.int64]) -> None:
    with path.open("wb") as file:
        np.save(file, positions.astype("<i8"), allow_pickle=False)


def read_hidden(paths: Iterable[Path]) -> npt.NDArray[np.int64]:
    """The positions (M,) int64 in some files, ascending.

    Raises:
        CorruptSegment: a file does not hold positions.
    """
    found = [np.empty(0, dtype=np.int64), *map(_read, paths)]
    return np.unique(np.concatenate(found))


def not_hidden(count: int, hidden: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of `count` entries (count,) are current, by position."""
    current = np.ones(count, dtype=bool)
    current[hidden] = False
    return current


def _read(path: Path) -> npt.NDArray[np.int64]:
    try:
        positions: npt.NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptSegment(f"{path.name} holds no positions: {error}") from error
    if positions.ndim != 1 or positions.dtype != np.int64:
        raise CorruptSegment(f"{path.name} holds {positions.dtype} {positions.shape} instead of positions.")
    return positions
