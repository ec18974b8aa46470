"""Which segments are merged."""

from __future__ import annotations

import pytest

from workers.index.collection.manifest import SegmentFiles
from workers.index.maintenance.tiers import MOST_OF_A_TIER, to_merge


def segment(count: int, superseded: int = 0) -> SegmentFiles:
    return SegmentFiles(index="0" * 64, assets="0" * 64, meta="0" * 64, count=count, superseded=superseded)


def grown(base: int, additions: int, each: int) -> tuple[list[int], int]:
    """The sizes of segments after some additions to a segment, and how many entries were written for these."""
    sizes, written = [base], 0
    for _ in range(additions):
        parts = [segment(size) for size in sizes]
        merged = to_merge(parts, each)
        new = each + sum(part.count for part in merged)
        sizes, written = [part.count for part in parts if part not in merged] + [new], written + new
    return sizes, written


@pytest.mark.parametrize("base", [100_000, 10_000_000, 1_000_000_000])
def test_an_addition_costs_the_same_however_large_the_collection_is(base: int) -> None:
    sizes, written = grown(base, 500, 100)
    assert sum(sizes) == base + 500 * 100
    assert written <= 4 * 500 * 100  # once for each tier that they have reached
    assert sizes[0] == base


def test_a_collection_has_few_segments_of_each_size() -> None:
    for additions in (7, 8, 60, 64, 65, 511, 1_000):
        sizes, _ = grown(0, additions, 1)
        for tier in range(5):
            assert sum(8**tier <= size < 8 ** (tier + 1) for size in sizes) <= MOST_OF_A_TIER


def test_a_segment_most_of_whose_entries_are_hidden_is_rewritten() -> None:
    assert to_merge([segment(1_000, superseded=1_000)], 5) == []
    old = segment(1_000, superseded=1_001)
    assert to_merge([segment(9_000), old], 5) == [old]
    assert to_merge([segment(0, superseded=3)], 0) == [segment(0, superseded=3)]


def test_without_additions_nothing_is_merged() -> None:
    assert to_merge([segment(5) for _ in range(20)], 0) == []
