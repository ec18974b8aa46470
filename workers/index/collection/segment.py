"""A segment: an immutable part of a collection, mapped from its files."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection as AnyCollection
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tasks.errors import CorruptSegment
from workers.index.codec.codec import Codec, Codes, Positions, search, search_among
from workers.index.codec.kept import Kept, Mask
from workers.index.codec.mapped import map_index, write_index
from workers.index.codec.mapped_lists import MappedLists, code_at, codes_at, codes_of
from workers.index.codec.probes import Probe
from workers.index.codec.stored import Rows
from workers.index.collection.feature_table import map_features, merge_features
from workers.index.collection.hidden import not_hidden, read_hidden
from workers.index.collection.lookup import Lookup, Run, find_assets, merge_lookups
from workers.index.collection.text_table import TextTable, merge_tables

__all__ = [
    "Entries",
    "Entry",
    "Hit",
    "Segment",
    "SegmentPaths",
    "hits_at",
    "merge_segments",
    "meta_text",
    "write_segment",
]

# Pairs of metadata key and value whose positions are kept in memory.
_MOST_METADATA: Final = 32


class Named(Protocol):
    """What says whose entry was found."""

    @property
    def asset_id(self) -> str: ...

    @property
    def meta(self) -> Mapping[str, str]: ...


class Hit(NamedTuple):
    """An entry that a search found; `distance` is squared L2, or Hamming for LSH. `feature` is its stored feature
    (row_bytes,), where the collection keeps features."""

    named: Named
    distance: float
    feature: Rows | None = None

    @property
    def asset_id(self) -> str:
        return self.named.asset_id

    @property
    def meta(self) -> Mapping[str, str]:
        return self.named.meta


@dataclass(frozen=True)
class Entry:
    """An asset's code (code_size,), and its stored feature (row_bytes,) where the collection keeps features."""

    code: Codes
    feature: Rows | None = None


@dataclass(frozen=True)
class SegmentPaths:
    """A segment's files: the index, and two tables by position; a lookup, which segments of earlier versions lack; the
    stored features, where the collection keeps them; and the positions of hidden entries, in any number of files. The
    index is `partial` where it has the entries of some cells only."""

    index: Path
    assets: Path
    meta: Path
    lookup: Path | None = None
    features: Path | None = None
    hidden: tuple[Path, ...] = ()
    partial: bool = False

    @classmethod
    def below(cls, folder: Path, *, features: bool = False) -> SegmentPaths:
        """Files in a folder; with or without one of stored features."""
        stored = folder / "features" if features else None
        return cls(folder / "index", folder / "assets", folder / "meta", folder / "lookup", stored)


@dataclass(frozen=True)
class Entries:
    """Codes (N, code_size), the N asset_ids they belong to, and N metadata (see :func:`meta_text`); and where the
    collection keeps features, N of these in any number of parts (M, row_bytes)."""

    codes: Codes
    asset_ids: Iterable[str]
    metas: Iterable[str]
    features: Iterable[Rows] = ()


def write_segment(codec: Codec, entries: Entries, paths: SegmentPaths) -> None:
    """Write entries durably."""
    merge_segments(codec, (), entries, paths)


def merge_segments(codec: Codec, parts: Sequence[tuple[Segment, Mask]], more: Entries, paths: SegmentPaths) -> None:
    """Write the entries of some segments that are kept (one bool for each position), and then `more`, durably.

    What this takes of memory grows with `more`, and by a byte for each entry of the segments: files are written in
    parts. Only an index without cells is made in memory.
    """
    kept = _placed(parts)
    count = sum(len(some) for _, some in kept) + len(more.codes)
    write_index(codec, [(segment.index, some) for segment, some in kept], more.codes, paths.index)
    merged = [merge_tables(paths.assets, [(segment.assets, mask) for segment, mask in parts], more.asset_ids)]
    merged.append(merge_tables(paths.meta, [(segment.metas, mask) for segment, mask in parts], more.metas))
    written = [paths.index, paths.assets, paths.meta]
    if paths.lookup:
        _write_lookup(paths.lookup, kept, TextTable(paths.assets))
        written.append(paths.lookup)
    if paths.features:
        stored = [(segment.stored, mask) for segment, mask in parts]
        merged.append(merge_features(paths.features, stored, more.features))
        written.append(paths.features)
    if set(merged) != {count}:
        raise ValueError(f"{count} codes, but of ids, metadata and features {merged}")
    for path in written:
        _flush(path)


def _placed(parts: Sequence[tuple[Segment, Mask]]) -> list[tuple[Segment, Kept]]:
    """Where the kept entries of segments are, one behind the other."""
    placed, first = [], 0
    for segment, mask in parts:
        placed.append((segment, Kept(mask, first)))
        first += len(placed[-1][1])
    return placed


def _write_lookup(path: Path, parts: Sequence[tuple[Segment, Kept]], table: TextTable) -> None:
    """Write the lookup of a table: of the ids that are kept of segments, and those behind them."""
    first = sum(len(kept) for _, kept in parts)
    added = Run.of(table.beginning_at(first))
    runs = [(segment.run, kept) for segment, kept in parts]
    merge_lookups(path, [*runs, (added, Kept(np.ones(len(added.hashes), dtype=bool), first))])


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
        self.index = map_index(codec, paths.index)
        # FAISS keeps Python's lock while it unmaps a file: until its pages are free, if it was deleted and nothing else
        # has it. So it is mapped here once more, and unmapped later.
        self.file = np.memmap(paths.index, dtype=np.uint8, mode="r", shape=1)
        self.assets = TextTable(paths.assets)
        self.metas = TextTable(paths.meta)
        most = len(self.assets)
        if len(self.metas) != most or not (0 if paths.partial else most) <= self.index.ntotal <= most:
            raise CorruptSegment(
                f"{paths.index.name} holds {self.index.ntotal} codes, {paths.assets.name} {len(self.assets)} assets, "
                f"{paths.meta.name} {len(self.metas)} metadata."
            )
        self._lookup = Lookup(paths.lookup, self.assets) if paths.lookup else None
        self._features = map_features(paths.features, len(self.assets)) if paths.features else None
        self.hidden = read_hidden(paths.hidden)
        self._positions_by_pair: dict[tuple[str, str], Positions] = {}

    def hiding(self, hidden: Sequence[Path]) -> Segment:
        """The same segment, on the same mapped files, with other entries hidden."""
        other = copy.copy(self)
        other.hidden = read_hidden(hidden)
        return other

    def __len__(self) -> int:
        """Entries that are current."""
        return len(self.assets) - len(self.hidden)

    @property
    def codes(self) -> Codes:
        """All codes (N, code_size) uint8, by position: a copy in memory."""
        return codes_of(self.index)

    @cached_property
    def lists(self) -> MappedLists:
        """Its inverted lists; only of a codec with cells."""
        return MappedLists(self.index)

    @property
    def stored(self) -> Rows:
        """All stored features (N, row_bytes) uint8, by position, mapped; only of a collection that keeps features."""
        if self._features is None:
            raise CorruptSegment("A segment lacks the stored features that its collection keeps.")
        return self._features

    def codes_at(self, positions: Positions) -> Codes:
        """The codes (M, code_size) uint8 at some positions (M,), ascending."""
        return codes_at(self.index, positions)

    @property
    def run(self) -> Run:
        """The hashes of all asset_ids, and their positions."""
        return self._lookup.run if self._lookup else Run.of(self.assets)

    @property
    def current(self) -> npt.NDArray[np.bool_]:
        """Which entries (N,) are not hidden, by position."""
        return not_hidden(len(self.assets), self.hidden)

    def find(self, asset_ids: AnyCollection[str]) -> Positions:
        """The positions (M,) int64 of some assets' current entries, ascending."""
        return find_assets(self.assets, self._lookup, self.hidden, asset_ids)

    def code_at(self, position: int) -> Codes | None:
        """The code (code_size,) of the entry at a position; None where there is none, or it is in a cell that the index
        lacks."""
        try:
            return code_at(self.index, position)
        except IndexError:
            return None

    def feature_at(self, position: int) -> Rows | None:
        """The stored feature (row_bytes,) of the entry at a position, where the collection keeps features."""
        return None if self._features is None else self._features[position]

    def found(self, probe: Probe, k: int, where: Mapping[str, str]) -> Sequence[tuple[int, float]]:
        """Positions and distances of the `k` nearest entries that have the metadata `where`, nearest first. Without
        `where`, hidden ones are among them."""
        if where:
            return search_among(self._codec, self.index, probe, k, self._positions_with(where))
        return search(self.index, probe, k)

    def _positions_with(self, where: Mapping[str, str]) -> Positions:
        found = reduce(np.intersect1d, (self._positions_of(*pair) for pair in where.items()))
        return np.setdiff1d(found, self.hidden, assume_unique=True)

    def _positions_of(self, key: str, value: str) -> Positions:
        """The positions (M,) int64 of the entries with one pair of metadata; searched once, then remembered."""
        known = self._positions_by_pair.get((key, value))
        if known is None:
            known = self.metas.containing(meta_text({key: value})[1:-1])
            if len(self._positions_by_pair) >= _MOST_METADATA:
                self._positions_by_pair.clear()
            self._positions_by_pair[key, value] = known
        return known

    def meta_at(self, position: int) -> Mapping[str, str]:
        """The metadata of the entry at a position."""
        text = self.metas[position]
        return json.loads(text) if text else {}  # type: ignore[no-any-return]


class _Place(NamedTuple):
    """An entry of a segment. Its name and metadata are read when they are asked for: most hits are there for their
    distances only."""

    segment: Segment
    position: int

    @property
    def asset_id(self) -> str:
        return self.segment.assets[self.position]

    @property
    def meta(self) -> Mapping[str, str]:
        return self.segment.meta_at(self.position)


def hits_at(segments: Sequence[Segment], positions: Sequence[int], distances: Sequence[float]) -> list[Hit]:
    """The entries at some positions, each of a segment of its own."""
    features = [segment.feature_at(position) for segment, position in zip(segments, positions, strict=True)]
    return list(map(Hit, map(_Place, segments, positions), distances, features))
