"""Feature vectors as they are uploaded: rows of little-endian float32. Needs no numpy; arrays and files of it are taken
as they are."""

from __future__ import annotations

import ast
import json
import math
import operator
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks.errors import InvalidRequest
from tasks.messages import MOST_VALUES, MOST_VECTORS

__all__ = ["Vectors", "packed", "vectors_in"]

_NPY: Final = b"\x93NUMPY"
_ITEMS: Final = {"<f4": "f", "<f8": "d"}


@dataclass(frozen=True)
class Vectors:
    """`count` vectors of `dimension` values."""

    data: bytes
    count: int
    dimension: int

    def split(self, most: int) -> Iterator[Vectors]:
        """The same in parts of at most `most` vectors, in order."""
        row_bytes = 4 * self.dimension
        for start in range(0, self.count, most):
            count = min(most, self.count - start)
            yield Vectors(self.data[start * row_bytes : (start + count) * row_bytes], count, self.dimension)


def packed(vectors: Any) -> Vectors:
    """Pack the vectors of one look-up: an array (N, D) of float32, or anything else that gives rows of numbers.

    Raises:
        InvalidRequest: there are none, too many, too long ones, or they are not of one length.
    """
    found = vectors if isinstance(vectors, Vectors) else _packed(vectors)
    if found.count > MOST_VECTORS:
        raise InvalidRequest(f"1 to {MOST_VECTORS:,} vectors can be looked up at once, not {found.count:,}.")
    if found.dimension > MOST_VALUES:
        raise InvalidRequest(f"A vector has at most {MOST_VALUES:,} values, not {found.dimension:,}.")
    return found


def vectors_in(data: bytes) -> Vectors:
    """The vectors of a file: numpy's (`.npy`, float32 or float64), or JSON, a list of lists or one list a line.

    Raises:
        InvalidRequest: it is no such file.
    """
    if data.startswith(_NPY):
        return _of_npy(data)
    try:
        rows = _of_json(data.decode())
    except (ValueError, RecursionError):
        raise InvalidRequest("A file of vectors is .npy, or JSON: a list of lists, or one list a line.") from None
    return _packed(rows)


def _of_json(text: str) -> list[Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if not isinstance(said, list):
        raise ValueError(f"a {type(said).__name__}")
    return said if said and isinstance(said[0], list) else [said]


def _of_npy(data: bytes) -> Vectors:
    """A file of numpy's format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""
    try:
        length_bytes = 2 if data[6] == 1 else 4
        begin = 8 + length_bytes
        end = begin + int.from_bytes(data[8:begin], "little")
        header = ast.literal_eval(data[begin:end].decode())
        count, dimension = map(operator.index, header["shape"])
        by_columns, values = header["fortran_order"], array(_ITEMS[header["descr"]], data[end:])
    except (LookupError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise InvalidRequest("The .npy file holds no array (N, D) of float32 or float64.") from None
    if by_columns or len(values) != count * dimension:
        raise InvalidRequest("The .npy file is cut short, or its array is not stored row by row.")
    if sys.byteorder == "big":
        values.byteswap()
    return _packed([values[start : start + dimension] for start in range(0, len(values), dimension or 1)])


def _packed(vectors: Any) -> Vectors:
    rows = _rows(vectors)
    lengths = {len(row) for row in rows}
    if not rows:
        raise InvalidRequest("There are no vectors.")
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidRequest("All vectors need the same number of values, at least one.")
    if sys.byteorder == "big":
        for row in rows:
            row.byteswap()
    return Vectors(b"".join(row.tobytes() for row in rows), len(rows), lengths.pop())


def _rows(vectors: Sequence[Any]) -> list[array[float]]:
    try:
        rows = [array("f", [float(value) for value in row]) for row in vectors]
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest("Vectors are rows of numbers: an array (N, D), or a list of lists.") from None
    if not all(math.isfinite(value) for row in rows for value in row):
        raise InvalidRequest("A vector has a value that is no finite number as float32.")
    return rows
