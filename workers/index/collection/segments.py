"""The segments of one generation: opened, and searched together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice
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

__all__ = ["Segments", "Wanted", "find_in", "first_of", "open_segment", "open_segments"]

Wanted = Callable[[str], bool]  # of an asset, by its id

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

    def best(self, probe: Probe, k: int, where: Mapping[str, str]) -> list[Hit]:
        """The `k` nearest current entries that have the metadata `where`, nearest first."""
        return self.hits(self.nearest(lambda depth: self.found([probe], depth, where)[0], k))

    def nearest(self, find: Callable[[int], Found], k: int, wanted: Wanted | None = None) -> Found:
        """The first `k` current entries of wanted assets in what a search finds, which goes deeper only when there are
        too few of them."""
        depth = k
        while True:
            found = find(depth)
            good = self._current(found)
            good = self._of_wanted(good, k, wanted) if wanted else first_of(good, k)
            if len(good[0]) >= k or len(found[0]) < depth:
                return good
            depth *= 4

    def found(self, probes: Sequence[Probe], k: int, where: Mapping[str, str]) -> list[Found]:
        """For each probe, the `k` nearest entries that have the metadata `where`, by the number of their segment and
        the position there; of equal distances, those of earlier segments and positions first. Hidden ones may be among
        them."""
        return [self._found_among(probe, k, where) for probe in probes] if where else self._stack.search(probes, k)

    def found_inside(
        self, probes: Sequence[Probe], k: int, inner: Sequence[Probe], least: int
    ) -> tuple[list[Found], list[Found | None]]:
        """The same without `where`, and in fewer of their cells; see :meth:`Stack.search_inside`."""
        return self._stack.search_inside(probes, k, inner, least)

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

    def hits(self, found: Found) -> list[Hit]:
        """The entries that were found, in the same order."""
        numbers, positions, distances = found
        segments = [self.segments[number] for number in numbers.tolist()]
        return hits_at(segments, positions.tolist(), distances.tolist())

    def _current(self, found: Found) -> Found:
        """Without entries that are hidden."""
        if not len(self._hidden):
            return found
        numbers, positions, distances = found
        names = (numbers << _POSITION_BITS) + positions
        places = np.minimum(self._hidden.searchsorted(names), len(self._hidden) - 1)
        kept = self._hidden[places] != names
        return found if kept.all() else (numbers[kept], positions[kept], distances[kept])

    def _of_wanted(self, found: Found, k: int, wanted: Wanted) -> Found:
        """The first `k` entries of wanted assets: ids are read until there are as many."""
        numbers, positions, distances = found
        named = zip(numbers.tolist(), positions.tolist(), strict=True)
        good = (row for row, (n, p) in enumerate(named) if wanted(self.segments[n].assets[p]))
        kept = list(islice(good, k))
        return numbers[kept], positions[kept], distances[kept]


def first_of(found: Found, k: int) -> Found:
    """The nearest of what was found."""
    numbers, positions, distances = found
    return numbers[:k], positions[:k], distances[:k]


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
