"""Finds entries in the segments of one generation, alone or together with the workers of other shards.

Only segments are divided: the journal's changes are few, and every worker has them all. Hence what was registered a
moment ago is found, and what was removed is not, whatever other shards have read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from tasks.shards import Shard
from workers.index.codec.codec import Codes
from workers.index.codec.probes import Probe
from workers.index.codec.stack import Found, columns, merged
from workers.index.collection.manifest import Pointer
from workers.index.collection.segments import Segments, Wanted

__all__ = ["Contents", "Finder", "OtherGeneration", "Peers", "Pending", "Scope", "Sought"]

_MOST_AT_ONCE: Final = 256  # searches in a message, of some 3 kB each


class OtherGeneration(Exception):
    """Not all shards have the generation: the positions that another would name are not those here."""


@dataclass(frozen=True, eq=False)
class Sought:
    """The `k` nearest entries in the cells of a probe: of assets that have the metadata `where`, or of distractors.
    Equal to itself only."""

    probe: Probe
    k: int
    where: Mapping[str, str] = field(default_factory=dict)
    distractors: bool = False

    def among(self, cells: range) -> Sought:
        """The same in those of the probe's cells that are among these."""
        return Sought(self.probe.among(cells), self.k, self.where, self.distractors)


@dataclass(frozen=True)
class Contents:
    """The segments of one generation."""

    assets: Segments
    distractors: Segments

    def find(self, sought: Sequence[Sought]) -> list[Found]:
        """Search here: at once for all that differ in their probes only. What is sought in fewer cells of a query too
        is looked for in what was found in the others first."""
        found: dict[int, Found] = {}
        inner = _inside(sought)
        inside = set(inner.values())
        for numbers in _alike(sought, [n for n in range(len(sought)) if n not in inside]):
            self._search(sought, [n for n in numbers if n not in inner], found)
            self._search_inside(sought, [n for n in numbers if n in inner], inner, found)
        for numbers in _alike(sought, [n for n in inside if n not in found]):
            self._search(sought, numbers, found)
        nothing = columns([])
        return [found.get(n, nothing) for n in range(len(sought))]

    def _search(self, sought: Sequence[Sought], numbers: Sequence[int], found: dict[int, Found]) -> None:
        if not numbers:
            return
        first = sought[numbers[0]]
        of_them = self._segments(first).found([sought[n].probe for n in numbers], first.k, first.where)
        found.update(zip(numbers, of_them, strict=True))

    def _search_inside(
        self, sought: Sequence[Sought], numbers: Sequence[int], inner: Mapping[int, int], found: dict[int, Found]
    ) -> None:
        if not numbers:
            return
        first, within = sought[numbers[0]], [inner[n] for n in numbers]
        probes, fewer = ([sought[n].probe for n in some] for some in (numbers, within))
        least = max(sought[n].k for n in within)
        of_them, of_fewer = self._segments(first).found_inside(probes, first.k, fewer, least)
        found.update(zip(numbers, of_them, strict=True))
        found.update((n, known) for n, known in zip(within, of_fewer, strict=True) if known is not None)

    def _segments(self, sought: Sought) -> Segments:
        return self.distractors if sought.distractors else self.assets


def _alike(sought: Sequence[Sought], numbers: Iterable[int]) -> Iterable[list[int]]:
    """Those of some that differ in their probes only; what is in no cell is left out."""
    alike: dict[tuple[int, tuple[tuple[str, str], ...], bool], list[int]] = {}
    for number in numbers:
        one = sought[number]
        if one.probe.nprobe:
            alike.setdefault((one.k, tuple(one.where.items()), one.distractors), []).append(number)
    return alike.values()


def _inside(sought: Sequence[Sought]) -> dict[int, int]:
    """For each of what is sought, the number of another that is sought in fewer cells of the same query, and no deeper:
    one at most, and none where certain metadata are wanted."""
    widest: dict[tuple[int, bool], tuple[int, int]] = {}
    fewer: dict[int, int] = {}
    for number, one in enumerate(sought):
        nprobe = one.probe.nprobe
        if one.where or one.probe.cells is None or not nprobe:
            continue
        few, many = sorted(
            ((nprobe, number), widest.setdefault((id(one.probe.query), one.distractors), (nprobe, number)))
        )
        if few[0] < many[0] and sought[few[1]].k <= sought[many[1]].k:
            fewer[many[1]] = few[1]
    return fewer


@dataclass(frozen=True)
class Scope:
    """What is searched.

    Attributes:
        cells: of the codec.
        strict: whether a shard without this generation raises OtherGeneration; else it counts as one that is silent.
    """

    collection: str
    pointer: Pointer
    cells: int
    strict: bool


class Pending(Protocol):
    """A question that other shards were sent."""

    def answers(self) -> tuple[list[list[Found]], list[Shard]]:
        """What each shard that answered in time found, for all that was sought; and the shards that did not.

        Raises:
            OtherGeneration: one does not have the generation, and the scope is strict.
        """
        ...


class Peers(Protocol):
    """The other shards, as one of them sees them."""

    @property
    def shard(self) -> Shard: ...

    def ask(self, scope: Scope, sought: Sequence[Sought], shards: Sequence[Shard]) -> Pending:
        """Have other shards search a generation; they do it while the caller does something else."""
        ...

    def code_at(self, scope: Scope, number: int, position: int) -> Codes | None:
        """The code (code_size,) of the entry at a position of a segment of assets, by its number; None when the shard
        that has it does not answer."""
        ...


class Finder:
    """The searches of one call: see :meth:`Collection.search_many`. Not thread-safe.

    Args:
        peers: None where this worker searches all cells.
    """

    def __init__(self, contents: Contents, scope: Scope, peers: Peers | None) -> None:
        self._contents = contents
        self._scope = scope
        self._peers = peers
        self._found: dict[Sought, Found] = {}
        self._silent: set[Shard] = set()

    def prepare(self, sought: Iterable[Sought]) -> None:
        """Search at once for all that is going to be sought, and ask other shards by a message for many searches."""
        asked = list(dict.fromkeys(sought))
        for start in range(0, len(asked), _MOST_AT_ONCE):
            some = asked[start : start + _MOST_AT_ONCE]
            self._found.update(zip(some, self._all(some), strict=True))

    def find(self, sought: Sought) -> Found:
        """What is sought; without the entries of shards that do not answer."""
        known = self._found.get(sought)
        return self._all([sought])[0] if known is None else known

    def nearest(self, sought: Sought, wanted: Wanted | None) -> Found:
        """The nearest current entries that are sought, nearest first; of wanted assets, or of all without `wanted`."""
        assets = self._contents.assets
        return assets.nearest(
            lambda depth: self.find(sought if depth == sought.k else replace(sought, k=depth)), sought.k, wanted
        )

    def unsearched(self, probe: Probe) -> float:
        """The share of a probe's cells that no one searched, as far as it is known now."""
        if not self._silent or probe.cells is None:
            return 0.0
        missing = sum(probe.among(shard.cells(self._scope.cells)).nprobe for shard in self._silent)
        return missing / probe.nprobe

    def _all(self, sought: Sequence[Sought]) -> list[Found]:
        """What is sought, in all cells."""
        return self._together(self._peers, sought) if self._peers else self._contents.find(sought)

    def _together(self, peers: Peers, sought: Sequence[Sought]) -> list[Found]:
        """What is sought in the cells of all shards. One that was silent is not asked again for the same call."""
        own = peers.shard
        asked = [shard for shard in own.all if shard != own and self._concerns(shard, sought)]
        pending = peers.ask(self._scope, sought, [shard for shard in asked if shard not in self._silent])
        here = self._contents.find([one.among(own.cells(self._scope.cells)) for one in sought])
        elsewhere, silent = pending.answers()
        self._silent.update(silent)
        return [merged(parts, one.k) for one, *parts in zip(sought, here, *elsewhere, strict=True)]

    def _concerns(self, shard: Shard, sought: Sequence[Sought]) -> bool:
        cells = shard.cells(self._scope.cells)
        return any(one.probe.among(cells).nprobe for one in sought)
