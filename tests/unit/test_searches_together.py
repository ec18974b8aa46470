"""What is sought in some cells of a query and in fewer of them is found by one search where that tells both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.collections import trained_codec, unit_vectors
from workers.index.codec.codec import Codes, Features
from workers.index.codec.probes import Probe
from workers.index.codec.stack import Found
from workers.index.collection.delta import Delta
from workers.index.collection.finder import Contents, Sought
from workers.index.collection.journal import Change
from workers.index.collection.segment import Entries, Segment, SegmentPaths, write_segment
from workers.index.collection.segments import Segments

CODES = trained_codec().encode(unit_vectors(600, 5))
QUERIES = unit_vectors(80, 6)
K = 12


def segments_of(folder: Path, parts: list[Codes]) -> Segments:
    opened = []
    for number, codes in enumerate(parts):
        paths = SegmentPaths.below(folder / str(number))
        paths.index.parent.mkdir(parents=True)
        ids = (f"asset-{number}-{i}" for i in range(len(codes)))
        write_segment(trained_codec(), Entries(codes, ids, [""] * len(codes)), paths)
        opened.append(Segment(paths, trained_codec()))
    return Segments(trained_codec(), opened)


def pairs(features: Features, nprobe: int, least: int, cells: range) -> list[Sought]:
    """Each query in fewer of its cells, and in eight, of those in a range."""
    probes = trained_codec().probes(features, 8)
    both = ((probe.of_nearest(nprobe), least, probe) for probe in probes)
    return [one.among(cells) for few, k, all_ in both for one in (Sought(few, k), Sought(all_, K))]


def same(found: Found, expected: Found) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def first(found: Found, k: int) -> Found:
    numbers, positions, distances = found
    return numbers[:k], positions[:k], distances[:k]


@pytest.mark.parametrize("cells", [range(16), range(5, 11)], ids=["all", "a shard's"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_found_in_fewer_cells_is_what_its_own_search_finds(tmp_path: Path, count: int, cells: range) -> None:
    contents = Contents(segments_of(tmp_path, np.array_split(CODES, count)), Segments(trained_codec(), []))
    for nprobe, least in ((1, 2), (3, 5), (3, K)):
        sought = pairs(QUERIES, nprobe, least, cells)
        for one, found in zip(sought, contents.find(sought), strict=True):
            (alone,) = contents.find([one])
            assert same(first(found, one.k), alone)


def test_it_is_searched_for_where_too_few_of_the_nearest_are_in_fewer_cells(tmp_path: Path) -> None:
    segments, probes = segments_of(tmp_path, [CODES]), trained_codec().probes(QUERIES, 8)
    fewer = [probe.of_nearest(1) for probe in probes]
    counts = {}
    for least in (1, 6, K):
        _, inside = segments.found_inside(probes, K, fewer, least)
        counts[least] = sum(found is not None for found in inside)
        assert all(found is None or len(found[0]) >= least for found in inside)
    assert len(QUERIES) > counts[1] > counts[6] > counts[K]
    _, inside = segments.found_inside(probes, len(CODES) + 1, fewer, len(CODES) + 1)  # all are found, whatever there is
    assert None not in inside


def test_cells_that_are_not_the_nearest_of_the_others_are_searched(tmp_path: Path) -> None:
    segments, probes = segments_of(tmp_path, [CODES]), trained_codec().probes(QUERIES, 8)
    others = [Probe(probe.query, probe.cells[:, 5:6], probe.distances[:, 5:6]) for probe in probes]
    assert set(map(type, segments.found_inside(probes, 600, others, 1)[1])) == {type(None)}


def test_where_there_is_no_segment_nothing_is_found() -> None:
    nothing = Segments(trained_codec(), [])
    found = Contents(nothing, nothing).find(pairs(QUERIES[:2], 1, 1, range(16)))
    assert [len(numbers) for numbers, _, _ in found] == [0, 0, 0, 0]


@pytest.mark.parametrize("count", [0, 3, 300])
def test_the_journal_is_searched_in_fewer_cells_as_by_a_search_of_its_own(count: int) -> None:
    delta, around = Delta(trained_codec()), trained_codec().probes(QUERIES, 8)
    delta.apply([Change("1-0", f"new-{i}", code, {}) for i, code in enumerate(CODES[:count])])
    delta.apply([Change("2-0", f"new-{i}", None, {}) for i in range(0, count, 7)])
    fewer = [probe.of_nearest(2) for probe in around]
    others, hits = delta.nearest_inside(around, K, fewer, 4)
    assert others == delta.nearest(around, K, {})
    assert [some[:4] for some in hits] == delta.nearest(fewer, 4, {})
