"""How many hosts hold an index in memory, and what it costs to ask more than one."""

from __future__ import annotations

import math
import re
from typing import Final

from tasks.messages import Frozen
from workers.index.codec.list_blocks import largest_part
from workers.index.codec.plan import Proposal, cell_bytes

__all__ = ["Hosts", "hosts_for"]

# The rest is for the worker itself, for what it reads of the tables, and for the next generation.
_FOR_LISTS: Final = 0.6
_POSITION_BYTES: Final = 8
# The files of the next generation are fetched beside those of the current one.
_GENERATIONS: Final = 2
# Redis commands of a query: to write the question and to delete it, three for each other shard's queue, an answer each;
# and of a shard, to take the question, read it, mark it and two to answer.
_ASKING: Final = 2
_OF_EACH_SHARD: Final = 3 + 1 + 5


class Hosts(Frozen):
    """What an index takes of the hosts that search it.

    Attributes:
        list_bytes: inverted lists, or codes without cells: what searches have to find in memory.
        host_bytes: memory of one host.
        shards: among how many hosts the cells have to be divided; 1 for one host alone, None where the index has no
            cells that could be divided.
        redis_commands: of one query, for asking the other shards.
        disk_bytes: of one host, which fetches the blocks of lists that have its cells, and all tables: that of a
            generation twice, as the next one is fetched beside it.
        whole_disk_bytes: of a host that has all cells, as repairs and many a compaction need.
    """

    list_bytes: int
    host_bytes: int
    shards: int | None
    redis_commands: int
    disk_bytes: int
    whole_disk_bytes: int


def hosts_for(proposal: Proposal, images: int, host_bytes: int) -> Hosts:
    """Hosts of this memory for an index of so many images."""
    cells = re.search(r"IVF(\d+)", proposal.factory)
    # In a list, an entry is its code without the cell, and its position.
    entry_bytes = proposal.code_bytes - cell_bytes(int(cells[1])) + _POSITION_BYTES if cells else proposal.code_bytes
    size = images * entry_bytes
    shards = max(1, math.ceil(size / (_FOR_LISTS * host_bytes)))
    elsewhere = size - math.ceil(size * largest_part(shards, int(cells[1]))) if cells else 0
    return Hosts(
        list_bytes=size,
        host_bytes=host_bytes,
        shards=shards if cells or shards == 1 else None,
        redis_commands=_ASKING + (shards - 1) * _OF_EACH_SHARD if cells and shards > 1 else 0,
        disk_bytes=_GENERATIONS * (proposal.file_bytes - elsewhere),
        whole_disk_bytes=_GENERATIONS * proposal.file_bytes,
    )
