"""Feature vectors as they are uploaded: rows of little-endian float32. Needs no numpy; arrays of it are taken as they
are."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.errors import InvalidRequest
from tasks.messages import MOST_VECTORS

__all__ = ["Vectors", "packed"]


@dataclass(frozen=True)
class Vectors:
    """`count` vectors of `dimension` values."""

    data: bytes
    count: int
    dimension: int


def packed(vectors: Any) -> Vectors:
    """Pack vectors: an array (N, D) of float32, or anything else that gives rows of numbers.

    Raises:
        InvalidRequest: there are none, too many, or they are not of one length.
    """
    rows = _rows(vectors)
    lengths = {len(row) for row in rows}
    if not 0 < len(rows) <= MOST_VECTORS:
        raise InvalidRequest(f"1 to {MOST_VECTORS:,} vectors can be looked up at once, not {len(rows):,}.")
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidRequest("All vectors need the same number of values, at least one.")
    if sys.byteorder == "big":
        for row in rows:
            row.byteswap()
    return Vectors(b"".join(row.tobytes() for row in rows), len(rows), lengths.pop())


def _rows(vectors: Sequence[Any]) -> list[array[float]]:
    try:
        return [array("f", [float(value) for value in row]) for row in vectors]
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest("Vectors are rows of numbers: an array (N, D), or a list of lists.") from None
