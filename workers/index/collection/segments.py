"""The segments of one generation: opened, and searched together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from tasks.errors import CorruptSegment
from tasks.shards import Shard
from workers.index.codec.codec import Codec, Positions
from workers.index.codec.probes import Probe
from workers.index.codec.stack import Found, Stack, columns, merged
from workers.index.codec.stored import Rows
from workers.index.collection.files import CollectionStore
from workers.index.collection.hidden import read_hidden
from workers.index.collection.lookup import Lookup, find_assets
from workers.index.collection.manifest import Manifest, SegmentFiles
from workers.index.collection.segment import Hit, Segment, hits_at
from workers.index.collection.text_table import TextTable

__all__ = ["Segments", "Wanted", "best", "find_in", "open_segment", "open_segments"]

Wanted = Callable[[Hit], bool]

_T = TypeVar("_T")
_POSITION_BITS = 32


class Segments:
    """Searches segments of one codec as if they were one. Thread-safe."""

    def __init__(self, codec: Codec, segments: Sequence[Segment]) -> None:
        self.segments = list(segments)
        lists = [segment.lists for segment in segments] if codec.has_cells else []
        self._stack = Stack(codec, [segment.index for segment in segments], lists)
        hidden = [(number << _POSITION_BITS) + segment.hidden for number, segment in enumerate(segments)]
        self._hidden = np.concatenate([np.empty(0, dtype=np.int64), *hidden])

    def __len__(self) -> int:
        """Entries that are current."""
        return sum(map(len, self.segments))

    def parts(self) -> list[object]:
        """What takes long to free, the last one first; see
        :meth:`workers.index.collection.generation.Generation.parts`."""
        return [*(segment.file for segment in self.segments), *self._stack.parts()]

    def holds(self, asset_id: str) -> bool:
        """Whether an asset has a current entry here."""
        return any(len(segment.find([asset_id])) for segment in self.segments)

    def place_of(self, asset_id: str) -> tuple[int, int] | None:
        """The number of the segment with an asset's current entry, and the position there; None for one that is not
        here."""
        places = ((n, p) for n, segment in enumerate(self.segments) for p in segment.find([asset_id]).tolist())
        return next(places, None)

    def best(self, probe: Probe, k: int, where: Mapping[str, str], wanted: Wanted) -> list[Hit]:
        """The `k` nearest wanted entries that have the metadata `where`, nearest first."""
        return best(lambda depth: self.hits(self.found([probe], depth, where)[0]), k, wanted)

    def found(self, probes: Sequence[Probe], k: int, where: Mapping[str, str]) -> list[Found]:
        """For each probe, the `k` nearest entries that have the metadata `where`, by the number of their segment and
        the position there; of equal distances, those of earlier segments and positions first. Hidden ones may be among
        them."""
        return [self._found_among(probe, k, where) for probe in probes] if where else self._stack.search(probes, k)

    def _found_among(self, probe: Probe, k: int, where: Mapping[str, str]) -> Found:
        found = [(n, p, d) for n, segment in enumerate(self.segments) for p, d in segment.found(probe, k, where)]
        return merged([columns(found)], k)

    def stored(self, found: Found) -> Rows:
        """The stored features (M, row_bytes) of the M entries that were found, at least one, hidden ones included."""
        numbers, positions, _ = found
        rows = np.empty((len(numbers), self.segments[int(numbers[0])].stored.shape[1]), dtype=np.uint8)
        for number in np.unique(numbers).tolist():
            chosen = numbers == number
            rows[chosen] = self.segments[number].stored[positions[chosen]]
        return rows

    def hits(self, found: Found) -> list[Hit | None]:
        """The entries that were found, in the same order; None in place of a hidden one."""
        numbers, positions, distances = found
        segments = [self.segments[number] for number in numbers.tolist()]
        hits: list[Hit | None] = [*hits_at(segments, positions.tolist(), distances.tolist())]
        if len(self._hidden):
            for place in np.flatnonzero(self._is_hidden((numbers << _POSITION_BITS) + positions)).tolist():
                hits[place] = None
        return hits

    def _is_hidden(self, names: np.ndarray) -> np.ndarray:
        places = np.minimum(self._hidden.searchsorted(names), len(self._hidden) - 1)
        return self._hidden[places] == names  # type: ignore[no-any-return]


def best(find: Callable[[int], Iterable[Hit | None]], k: int, wanted: Wanted) -> list[Hit]:
    """The first `k` wanted hits of a search, which goes deeper only when too few are wanted."""
    depth = k
    while True:
        hits = list(find(depth))
        good = [hit for hit in hits if hit and wanted(hit)]
        if len(good) >= k or len(hits) < depth:
            return good[:k]
        depth *= 4


def open_segments(
    files: CollectionStore, manifest: Manifest, codec: Codec, known: Mapping[str, Segment] | None = None,
    shard: Shard | None = None,
) -> list[Segment]:  # fmt: skip
    """Map a generation's segments, from checked local copies.

    Args:
        known: segments that are open already, by their names: they are not read again.
        shard: whose lists alone are needed; None for all.
    """
    opened = known or {}
    return [
        _twice(part, partial(_open, files, part, codec, opened.get(part.name), shard)) for part in manifest.segments
    ]


def open_segment(files: CollectionStore, part: SegmentFiles, codec: Codec) -> Segment:
    """Map one whole segment."""
    return _twice(part, partial(_open, files, part, codec, None, None))


def find_in(files: CollectionStore, part: SegmentFiles, asset_ids: Collection[str]) -> Positions:
    """The positions (M,) int64 of some assets' current entries in a segment, ascending, of which no codes are read."""
    return _twice(part, partial(_find, files, part, asset_ids))


def _twice(part: SegmentFiles, opening: Callable[[], _T]) -> _T:
    """Try twice: another process with the same cache may delete a file between its check and its opening."""
    try:
        return opening()
    except (FileNotFoundError, RuntimeError):  # FAISS raises the latter for a file it cannot open
        pass
    try:
        return opening()
    except (FileNotFoundError, RuntimeError) as error:
        raise CorruptSegment(f"Segment {part.index} cannot be opened: {error}") from error


def _open(
    files: CollectionStore, part: SegmentFiles, codec: Codec, known: Segment | None, shard: Shard | None
) -> Segment:
    if known is None:
        return Segment(files.fetch_segment(part, shard), codec)
    files.keep(part, shard)
    return known.hiding([files.fetch(digest) for digest in part.hidden])


def _find(files: CollectionStore, part: SegmentFiles, asset_ids: Collection[str]) -> Positions:
    assets = TextTable(files.fetch(part.assets))
    lookup = Lookup(files.fetch(part.lookup), assets) if part.lookup else None
    return find_assets(assets, lookup, read_hidden(map(files.fetch, part.hidden)), asset_ids)
