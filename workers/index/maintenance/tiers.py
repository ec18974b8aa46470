"""Which segments are merged when a new one is written: an LSM tree by size (O'Neil et al., Acta Informatica 1996).

Segments of similar size, less than eightfold apart, are a tier. Eight of a tier are merged into one of the next, so an
entry is written again once for each tier, however large the collection has become; and a search meets at most seven
segments of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from workers.index.collection.manifest import SegmentFiles

__all__ = ["MOST_OF_A_TIER", "to_merge"]

MOST_OF_A_TIER: Final = 7
_BITS: Final = 3  # a tier spans three bits of a count: a factor of eight


def to_merge(parts: Sequence[SegmentFiles], added: int) -> list[SegmentFiles]:
    """Those of some segments that are merged with `added` new entries into one segment; none, usually.

    A segment most of whose entries are hidden is always rewritten, which the changes that hid them have paid for.
    """
    merged = [part for part in parts if part.superseded > part.count]
    while True:
        size = added + sum(part.count for part in merged)
        near = [part for part in parts if part not in merged and _tier(part.count) <= _tier(size)]
        if not size or len(near) < MOST_OF_A_TIER:
            return merged
        merged += near


def _tier(count: int) -> int:
    return max(0, count.bit_length() - 1) // _BITS
