"""Shards: groups of workers that each search their own part of the coarse cells of every collection.

A shard's cells are neighbours in number, and so in the files of inverted lists: what the system reads ahead of one cell
is the same shard's. The names of shards are those of a worker's setting: ``2/4`` is the second of four.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

__all__ = ["Shard", "ShardName", "absent_shards"]


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` shards, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Raises ValueError for a text that names no shard."""
        found = re.fullmatch(r"([1-9][0-9]{0,2})/([1-9][0-9]{0,2})", text)
        if not found or int(found[1]) > int(found[2]):
            raise ValueError(f"{text[:20]!r} is no shard: 2/4, for instance, is the second of four")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def queue(self) -> str:
        """Redis list of the searches that this shard is asked for."""
        return f"aii:shard:{self}"

    @property
    def all(self) -> list[Shard]:
        """This shard and the others."""
        return [Shard(number, self.count) for number in range(1, self.count + 1)]

    def cells(self, of: int) -> range:
        """Which of the cells 0, 1 … of a codec are this shard's."""
        return range((self.number - 1) * of // self.count, self.number * of // self.count)


ShardName = Annotated[str, AfterValidator(lambda text: text and str(Shard.parse(text)))]
"""The name of a shard, or "" for none."""


def absent_shards(present: Iterable[str]) -> list[Shard]:
    """The shards without a worker, by the names of those that workers have (``""`` for a worker without)."""
    shards = {Shard.parse(name) for name in present if name}
    return sorted(
        {other for shard in shards for other in shard.all} - shards, key=lambda shard: (shard.count, shard.number)
    )
