"""A segment: an immutable part of a collection, mapped from its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Final

import numpy as np

from tasks.errors import CorruptSegment
from workers.index.codec.codec import Codec, Codes, Positions, Probe, code_at, codes_of, search, search_among
from workers.index.codec.mapped import map_index, write_index
from workers.index.collection.text_table import TextTable, write_table

__all__ = ["Hit", "Segment", "SegmentPaths", "meta_text", "write_segment"]

# Pairs of metadata key and value whose positions are kept in memory.
_MOST_METADATA: Final = 32


@dataclass(frozen=True)
class Hit:
    """An entry that a search found; `distance` is squared L2, or Hamming for LSH."""

    asset_id: str
    distance: float
    meta: Mapping[str, str]


@dataclass(frozen=True)
class SegmentPaths:
    """A segment's files: the FAISS index, and two tables by position."""

    index: Path
    assets: Path
    meta: Path

    @classmethod
    def below(cls, folder: Path) -> SegmentPaths:
        return cls(folder / "index", folder / "assets", folder / "meta")


def write_segment(
    codec: Codec, codes: Codes, asset_ids: Iterable[str], metas: Iterable[str], paths: SegmentPaths
) -> None:
    """Write N codes (N, code_size), the N asset_ids they belong to and N metadata (see :func:`meta_text`) durably."""
    write_index(codec, codes, paths.index)
    counts = write_table(paths.assets, asset_ids), write_table(paths.meta, metas)
    if counts != (len(codes), len(codes)):
        raise ValueError(f"{len(codes)} codes for {counts[0]} assets and {counts[1]} metadata")
    for path in (paths.index, paths.assets, paths.meta):
        _flush(path)


def meta_text(meta: Mapping[str, str]) -> str:
    """Metadata as they are stored in a table: a JSON object, or nothing when empty. The text of one pair never occurs
    within another's, so that a search for it finds only that pair."""
    return json.dumps(dict(meta), sort_keys=True) if meta else ""


def _flush(path: Path) -> None:
    """Sync a file to the disk, which FAISS does not do."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


class Segment:
    """Searches one mapped segment. Thread-safe. Check the files' digests before: FAISS loads damaged files silently.

    Raises:
        CorruptSegment: the files are not of one segment.
    """

    def __init__(self, paths: SegmentPaths, codec: Codec) -> None:
        self._codec = codec
        self._index = map_index(codec, paths.index)
        self.assets = TextTable(paths.assets)
        self.metas = TextTable(paths.meta)
        if not len(self.assets) == len(self.metas) == self._index.ntotal:
            raise CorruptSegment(
                f"{paths.index.name} holds {self._index.ntotal} codes, {paths.assets.name} {len(self.assets)} assets, "
                f"{paths.meta.name} {len(self.metas)} metadata."
            )
        self._positions_by_pair: dict[tuple[str, str], Positions] = {}

    def __len__(self) -> int:
        return len(self.assets)

    @property
    def codes(self) -> Codes:
        """All codes (N, code_size) uint8, by position: a copy in memory."""
        return codes_of(self._index)

    def code_of(self, asset_id: str) -> Codes | None:
        """The code (code_size,) uint8 of an asset; None for one that is not here. Reads the whole table of names."""
        positions = self.assets.containing(asset_id).tolist()
        return next((code_at(self._index, p) for p in positions if self.assets[p] == asset_id), None)

    def distances(self, probe: Probe, k: int) -> list[float]:
        """Of the `k` nearest entries, ascending, whatever they are."""
        return [distance for _, distance in search(self._index, probe, k)]

    def search(self, probe: Probe, k: int, where: Mapping[str, str]) -> Iterator[Hit]:
        """The `k` nearest entries that have the metadata `where`, nearest first."""
        found = (
            search_among(self._codec, self._index, probe, k, self._positions_with(where))
            if where
            else search(self._index, probe, k)
        )
        for position, distance in found:
            yield Hit(self.assets[position], distance, self._meta(position))

    def _positions_with(self, where: Mapping[str, str]) -> Positions:
        return reduce(np.intersect1d, (self._positions_of(*pair) for pair in where.items()))

    def _positions_of(self, key: str, value: str) -> Positions:
        """The positions (M,) int64 of the entries with one pair of metadata; searched once, then remembered."""
        known = self._positions_by_pair.get((key, value))
        if known is None:
            known = self.metas.containing(meta_text({key: value})[1:-1])
            if len(self._positions_by_pair) >= _MOST_METADATA:
                self._positions_by_pair.clear()
            self._positions_by_pair[key, value] = known
        return known

    def _meta(self, position: int) -> Mapping[str, str]:
        text = self.metas[position]
        return json.loads(text) if text else {}  # type: ignore[no-any-return]
