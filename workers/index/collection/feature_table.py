"""Feature tables: position in a segment → stored feature, mapped from a file.

Layout: ``AIIFEATS`` | count (uint64, little endian) | count rows of equal length; see
:class:`workers.index.codec.stored.FeatureFormat`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tasks.errors import CorruptSegment
from workers.index.codec.codec import Codec, together
from workers.index.codec.stored import FeatureFormat, Rows
from workers.index.collection.changes import Change

__all__ = ["map_features", "merge_features", "rows_of"]

_MAGIC: Final = b"AIIFEATS"
_HEADER: Final = 16
_CHUNK: Final = 16_384


def merge_features(path: Path, tables: Sequence[tuple[Rows, npt.NDArray[np.bool_]]], more: Iterable[Rows]) -> int:
    """Write the rows of some tables that are kept (one bool for each position), and then `more`, without holding them
    in memory; returns how many there were."""
    count = 0
    with path.open("wb") as file:
        file.write(_MAGIC + bytes(8))
        for rows in chain.from_iterable([*(_kept(*table) for table in tables), more]):
            file.write(np.ascontiguousarray(rows).data)
            count += len(rows)
        file.seek(len(_MAGIC))
        file.write(np.uint64(count).astype("<u8").tobytes())
    return count


def _kept(rows: Rows, kept: npt.NDArray[np.bool_]) -> Iterator[Rows]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK][kept[start : start + _CHUNK]]


def map_features(path: Path, count: int) -> Rows:
    """The rows (count, row_bytes) of a table, read-only.

    Raises:
        CorruptSegment: the file is not such a table.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size >= _HEADER else np.empty(0, np.uint8)
    size = len(data) - _HEADER
    if data[:8].tobytes() != _MAGIC or int(data[8:_HEADER].view("<u8")[0]) != count or (count and size % count):
        raise CorruptSegment(f"{path.name} holds no features of {count} entries.")
    # A plain view: of a memmap, each slice costs as much as comparing it.
    return np.asarray(data[_HEADER:]).reshape(count, size // count if count else 0)


def rows_of(changes: Sequence[Change], codec: Codec, stored: FeatureFormat) -> Rows:
    """The stored features (N, row_bytes) of changes that have codes; of one without a feature, such as an activation of
    an earlier version, its code's reconstruction."""
    codes = [change.code for change in changes if change.code is not None]
    rows = stored.encode(codec.decode(together(codes))) if codes else np.empty((0, stored.row_bytes), dtype=np.uint8)
    for row, change in zip(rows, changes, strict=True):
        if change.feature is not None and len(change.feature) == stored.row_bytes:
            row[:] = change.feature
    return rows
