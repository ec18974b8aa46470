"""The delta: the journal's changes since the newest segment, as an index in memory.

Entries are only ever appended; an asset that is added again, or removed, leaves a dead entry behind, which a search
skips. This works the same for every index family, whereas deleting shifts positions in most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from workers.index.codec.codec import Codec, Codes, Positions, append, pairs_of, search, search_among, together
from workers.index.codec.family import Family
from workers.index.codec.probes import Probe, batched, search_cells
from workers.index.codec.stored import FeatureFormat, Rows
from workers.index.collection.feature_table import rows_of
from workers.index.collection.journal import Change
from workers.index.collection.segment import Entry, Hit


class Delta:
    """Not thread-safe, except for :meth:`supersedes` and `first_change`: the collection that owns it holds a lock.

    Attributes:
        first_change: of each asset that was changed, the number of its first change.
    """

    def __init__(self, codec: Codec, stored: FeatureFormat | None = None) -> None:
        self._codec = codec
        self._stored = stored
        self._index = codec.filled(np.empty((0, codec.code_size), dtype=np.uint8))
        self._faster: Any = None  # with a table of distances
        # By position. Changes themselves would be 10,000 objects for each collection of garbage to go through.
        self._assets: list[str] = []
        self._metas: list[Mapping[str, str]] = []
        self._codes: list[Codes] = []
        self._features: list[Rows] = []  # where the collection keeps features
        self._position_of: dict[str, int] = {}
        self.first_change: dict[str, int] = {}
        self._changes = 0

    @property
    def changes(self) -> int:
        """How many changes were applied so far."""
        return self._changes

    def __len__(self) -> int:
        """Assets that the journal added and did not remove since."""
        return len(self._position_of)

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply additions and removals in order; an addition replaces an earlier one of the same asset."""
        added = [change for change in changes if change.code is not None]
        if added:
            append(self._index, together([change.code for change in added if change.code is not None]))
        if self._stored:
            self._features.extend(rows_of(added, self._codec, self._stored))
        for change in changes:
            self.first_change.setdefault(change.asset_id, self._changes)
            self._changes += 1
            if change.code is None:
                self._position_of.pop(change.asset_id, None)
            else:
                self._position_of[change.asset_id] = len(self._assets)
                self._assets.append(change.asset_id)
                self._metas.append(change.meta)
                self._codes.append(change.code)

    def supersedes(self, asset_id: str, changes: int) -> bool:
        """Whether an asset is among the first `changes` applied, so that its entries in segments are outdated."""
        return self.first_change.get(asset_id, changes) < changes

    def entry_of(self, asset_id: str) -> Entry | None:
        """What the journal gave an asset; None for an asset that it did not add, or removed."""
        position = self._position_of.get(asset_id)
        if position is None:
            return None
        return Entry(self._codes[position], self._features[position] if self._stored else None)

    def nearest(self, probes: Sequence[Probe], k: int, where: Mapping[str, str]) -> list[list[Hit]]:
        """For each probe, the `k` nearest entries that have the metadata `where`, nearest first."""
        if not self._position_of:
            return [[] for _ in probes]
        if where or not self._codec.has_cells:
            return [_live(partial(self._search, probe, where=where), k) for probe in probes]
        at_once = zip(probes, *search_cells(self._searched, batched(probes), k), strict=True)
        return [self._deep_enough(probe, k, pairs_of(distances, positions)) for probe, distances, positions in at_once]

    def nearest_inside(
        self, around: Sequence[Probe], k: int, inner: Sequence[Probe], least: int
    ) -> tuple[list[list[Hit]], list[list[Hit]]]:
        """The same without `where`; and for each of these queries the nearest entries in fewer of its cells, `least` of
        them or more: mostly from the same search."""
        others = self.nearest(around, k, {})
        hits = [self._in_cells(probe, near) for probe, near in zip(inner, others, strict=True)]
        left = [i for i, some in enumerate(hits) if len(some) < least and len(others[i]) == k]
        for i, some in zip(left, self.nearest([inner[i] for i in left], k, {}) if left else (), strict=True):
            hits[i] = some
        return others, hits

    @property
    def lacks_table(self) -> bool:
        """Whether there are so many entries that :meth:`use_table` makes searches faster: of fewer entries than cells,
        most cells are empty."""
        return self._faster is None and self._codec.has_cells and len(self._assets) >= self._codec.cells

    def use_table(self, shell: Any) -> None:
        """Search with the table of a shell that is empty; see :meth:`workers.index.codec.shells.Shells.empty`."""
        self._faster = self._codec.shells.over(Family(self._index).inner.invlists, shell)

    def parts(self) -> list[object]:
        """What it consists of; see :meth:`workers.index.collection.generation.Generation.parts`."""
        tables = [self._index, self._faster, self._position_of, self.first_change]
        return [*tables, *self._assets, *self._metas, *self._codes, *self._features]

    @property
    def _searched(self) -> Any:
        """What a search goes to. The lists of both grow."""
        return Family(self._index).inner if self._faster is None else self._faster

    def _in_cells(self, probe: Probe, hits: Sequence[Hit]) -> list[Hit]:
        """Those of some hits that are in the cells of a probe."""
        if not hits or probe.cells is None:
            return list(hits)
        codes = [self._codes[self._position_of[hit.asset_id]] for hit in hits]
        among = np.isin(self._codec.cells_of(together(codes)), probe.cells[0])
        return [hit for hit, chosen in zip(hits, among.tolist(), strict=True) if chosen]

    def _deep_enough(self, probe: Probe, k: int, found: Sequence[tuple[int, float]]) -> list[Hit]:
        """The same of what was found at first, unless so many of that are dead that it takes a deeper search."""
        live = [hit for hit in self._hits(found) if hit]
        deep_enough = len(live) == k or len(found) < k
        return live if deep_enough else _live(partial(self._search, probe, where={}), 4 * k)[:k]

    def _search(self, probe: Probe, k: int, where: Mapping[str, str]) -> Iterator[Hit | None]:
        """The `k` nearest entries that have the metadata `where`, nearest first; None in place of a dead one."""
        if where:
            return self._hits(search_among(self._codec, self._index, probe, k, self._positions_with(where)))
        return self._hits(search(self._searched, probe, k))

    def _hits(self, found: Sequence[tuple[int, float]]) -> Iterator[Hit | None]:
        for position, distance in found:
            asset_id = self._assets[position]
            live = self._position_of.get(asset_id) == position
            feature = self._features[position] if self._stored else None
            yield Hit(_Entry(asset_id, self._metas[position]), distance, feature) if live else None

    def _positions_with(self, where: Mapping[str, str]) -> Positions:
        wanted = where.items()
        live = (p for p in self._position_of.values() if wanted <= self._metas[p].items())
        return np.fromiter(live, dtype=np.int64)


class _Entry(NamedTuple):
    """Whose entry was found."""

    asset_id: str
    meta: Mapping[str, str]


def _live(find: Callable[[int], Iterable[Hit | None]], k: int) -> list[Hit]:
    """The first `k` hits of a search, which goes deeper only when too few are live."""
    depth = k
    while True:
        found = list(find(depth))
        live = [hit for hit in found if hit]
        if len(live) >= k or len(found) < depth:
            return live[:k]
        depth *= 4
