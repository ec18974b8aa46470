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
from workers.index.collection.segment import Hit
from workers.index.collection.segments import Segments, Wanted, best

__all__ = ["Contents", "Finder", "OtherGeneration", "Peers", "Pending", "Scope", "Sought"]

_MOST_AT_ONCE: Final = 256  # searches in a message, of some 3 kB each


class OtherGeneration(Exception):
    """Not all shards have the generation: the positions that another would name are not those here."""


@dataclass(frozen=True)
class Sought:
    """The `k` nearest entries in the cells of a probe: of assets that have the metadata `where`, or of distractors."""

    probe: Probe
    k: int
    where: Mapping[str, str] = field(default_factory=dict)
    distractors: bool = False

    @property
    def key(self) -> tuple[int, int, bool, bool]:
        """Tells what is sought for one query apart."""
        return id(self.probe), self.k, bool(self.where), self.distractors

    def among(self, cells: range) -> Sought:
        """The same in those of the probe's cells that are among these."""
        return Sought(self.probe.among(cells), self.k, self.where, self.distractors)


@dataclass(frozen=True)
class Contents:
    """The segments of one generation."""

    assets: Segments
    distractors: Segments

    def find(self, sought: Sequence[Sought]) -> list[Found]:
        """Search here: at once for all that differ in their probes only."""
        found: list[Found] = [columns([])] * len(sought)
        alike: dict[tuple[int, tuple[tuple[str, str], ...], bool], list[int]] = {}
        for number, one in enumerate(sought):
            if one.probe.nprobe:
                alike.setdefault((one.k, tuple(one.where.items()), one.distractors), []).append(number)
        for numbers in alike.values():
            first = sought[numbers[0]]
            segments = self.distractors if first.distractors else self.assets
            of_them = segments.found([sought[number].probe for number in numbers], first.k, first.where)
            for number, of_it in zip(numbers, of_them, strict=True):
                found[number] = of_it
        return found


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
        self._found: dict[tuple[int, int, bool, bool], Found] = {}
        self._silent: set[Shard] = set()

    def prepare(self, sought: Iterable[Sought]) -> None:
        """Search at once for all that is going to be sought, and ask other shards by a message for many searches."""
        asked = list(sought)
        for start in range(0, len(asked), _MOST_AT_ONCE):
            some = asked[start : start + _MOST_AT_ONCE]
            self._found |= {one.key: of_it for one, of_it in zip(some, self._all(some), strict=True)}

    def find(self, sought: Sought) -> Found:
        """What is sought; without the entries of shards that do not answer."""
        known = self._found.get(sought.key)
        return self._all([sought])[0] if known is None else known

    def best(self, sought: Sought, wanted: Wanted) -> list[Hit]:
        """The nearest wanted entries of the assets that are sought, nearest first."""
        assets = self._contents.assets
        return best(lambda depth: assets.hits(self.find(replace(sought, k=depth))), sought.k, wanted)

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
