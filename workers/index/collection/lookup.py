"""Finds the positions of some assets in a segment without reading its whole table of asset_ids.

Layout: ``AIIHASHS`` | count (uint64) | hashes (uint32), ascending | positions (uint32) in the same order; all little
endian. A hash is the first four bytes of an asset_id's BLAKE2b; the table itself decides among equal hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.errors import CorruptSegment
from workers.index.codec.kept import Kept
from workers.index.collection.text_table import TextTable

__all__ = ["Lookup", "Run", "find_assets", "merge_lookups"]

Hashes = npt.NDArray[np.uint32]

_MAGIC = b"AIIHASHS"
_HEADER = 16
_CHUNK = 8_192
_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class Run:
    """The hashes (N,) of a table's ids, ascending, and their positions (N,) uint32, which ascend among equal hashes."""

    hashes: Hashes
    positions: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, asset_ids: Iterable[str]) -> Run:
        """Of ids at positions 0, 1, 2 …"""
        hashes = _hashes_of(asset_ids)
        order = np.argsort(hashes, kind="stable").astype(np.uint32)
        return cls(hashes[order], order)

    def split(self, edges: Hashes) -> list[Run]:
        """Its parts before, between and from some hashes (E,) on."""
        cuts = [0, *self.hashes.searchsorted(edges).tolist(), len(self.hashes)]
        return [Run(self.hashes[first:end], self.positions[first:end]) for first, end in pairwise(cuts)]

    def kept(self, kept: Kept) -> Run:
        """The part that is kept, with its positions afterwards."""
        chosen = ... if kept.all else kept.mask[self.positions]
        positions = kept.moved(self.positions[chosen].astype(np.int64))
        return Run(self.hashes[chosen], positions.astype(np.uint32))


def _hashes_of(asset_ids: Iterable[str]) -> Hashes:
    """The hash of each id, (N,) uint32."""
    ids, parts = iter(asset_ids), [np.empty(0, dtype="<u4")]
    while some := list(islice(ids, _CHUNK)):
        digests = b"".join(hashlib.blake2b(asset.encode(), digest_size=4).digest() for asset in some)
        parts.append(np.frombuffer(digests, dtype="<u4"))
    return np.concatenate(parts)


def merge_lookups(path: Path, parts: Sequence[tuple[Run, Kept]], at_once: int = _AT_ONCE) -> None:
    """Write the lookup of what is kept of some tables, one behind the other.

    Args:
        at_once: about how many hashes, which are evenly spread, are held in memory and sorted at a time.
    """
    count, done = sum(len(kept) for _, kept in parts), _HEADER
    edges = np.linspace(0, 2**32, 2 + count // at_once)[1:-1].astype(np.uint32)
    with path.open("wb") as file:
        file.write(_MAGIC + np.uint64(count).astype("<u8").tobytes())
        for some in zip(*(run.split(edges) for run, _ in parts), strict=True):
            runs = [run.kept(kept) for run, (_, kept) in zip(some, parts, strict=True)]
            hashes, positions = np.concatenate([[run.hashes, run.positions] for run in runs], axis=1)
            order = np.argsort(hashes, kind="stable")
            for offset, values in ((done, hashes), (done + 4 * count, positions)):
                file.seek(offset)
                file.write(np.ascontiguousarray(values[order], dtype="<u4").data)
            done += 4 * len(order)


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
    def run(self) -> Run:
        """All of it, mapped."""
        return Run(self._hashes, self._positions)

    def find(self, asset_ids: Collection[str]) -> npt.NDArray[np.int64]:
        """The positions (M,) int64 of some assets, ascending; of those that are not there, none."""
        wanted = list(asset_ids)
        hashes = _hashes_of(wanted)
        first, end = (self._hashes.searchsorted(hashes, side) for side in ("left", "right"))
        found = [
            int(position)
            for i in np.flatnonzero(first < end).tolist()
            for position in self._positions[first[i] : end[i]]
            if self._assets[int(position)] == wanted[i]
        ]
        return np.array(sorted(found), dtype=np.int64)
