"""Finds the positions of some assets in a segment without reading its whole table of asset_ids.

Layout: ``AIIHASHS`` | count (uint64) | hashes (uint32), ascending | positions (uint32) in the same order; all little
endian. A hash is the first four bytes of an asset_id's BLAKE2b; the table itself decides among equal hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.errors import CorruptSegment
from workers.index.collection.text_table import TextTable

__all__ = ["Hashes", "Lookup", "find_assets", "hashes_of", "write_lookup"]

Hashes = npt.NDArray[np.uint32]

_MAGIC = b"AIIHASHS"
_HEADER = 16


def hashes_of(asset_ids: Iterable[str]) -> Hashes:
    """The hash of each id, (N,) uint32."""
    digests = b"".join(hashlib.blake2b(asset.encode(), digest_size=4).digest() for asset in asset_ids)
    return np.frombuffer(digests, dtype="<u4")


def write_lookup(path: Path, hashes: Hashes) -> None:
    """Write the lookup of a table whose ids have the hashes (N,) uint32, by position."""
    order = np.argsort(hashes, kind="stable")
    with path.open("wb") as file:
        file.write(_MAGIC + np.uint64(len(hashes)).astype("<u8").tobytes())
        file.write(np.ascontiguousarray(hashes[order], dtype="<u4").data)
        file.write(np.ascontiguousarray(order, dtype="<u4").data)


def find_assets(
    table: TextTable, lookup: Lookup | None, hidden: npt.NDArray[np.int64], asset_ids: Collection[str]
) -> npt.NDArray[np.int64]:
    """The positions (M,) int64 of some assets in a table that are not hidden, ascending; without a lookup, the table is
    read."""
    return np.setdiff1d(lookup.find(asset_ids) if lookup else _read_for(table, asset_ids), hidden, assume_unique=True)


def _read_for(table: TextTable, asset_ids: Collection[str]) -> npt.NDArray[np.int64]:
    wanted = set(asset_ids)
    return np.array([position for position, asset in enumerate(table) if asset in wanted], dtype=np.int64)


class Lookup:
    """A mapped lookup; read-only and thread-safe.

    Args:
        assets: the table that it was written for.

    Raises:
        CorruptSegment: the file is not a lookup of that table.
    """

    def __init__(self, path: Path, assets: TextTable) -> None:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        count = len(assets)
        if data[:8].tobytes() != _MAGIC or len(data) != _HEADER + 8 * count:
            raise CorruptSegment(f"{path.name} is no lookup of {count} assets.")
        self._hashes, self._positions = data[_HEADER:].view("<u4").reshape(2, count)
        self._assets = assets

    @property
    def hashes(self) -> Hashes:
        """Of all ids, (N,) uint32, by position: a copy in memory."""
        hashes = np.empty(len(self._hashes), dtype=np.uint32)
        hashes[self._positions] = self._hashes
        return hashes

    def find(self, asset_ids: Collection[str]) -> npt.NDArray[np.int64]:
        """The positions (M,) int64 of some assets, ascending; of those that are not there, none."""
        wanted = list(asset_ids)
        hashes = hashes_of(wanted)
        first, end = (self._hashes.searchsorted(hashes, side) for side in ("left", "right"))
        found = [
            int(position)
            for i in np.flatnonzero(first < end).tolist()
            for position in self._positions[first[i] : end[i]]
            if self._assets[int(position)] == wanted[i]
        ]
        return np.array(sorted(found), dtype=np.int64)
