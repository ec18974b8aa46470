"""A merge of segments: its files are those of one segment that is written at once, and the index is FAISS' own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.collections import unit_vectors
from workers.index.codec.codec import Codec, Codes
from workers.index.codec.family import Family
from workers.index.codec.inverted_lists import write_lists
from workers.index.codec.kept import Kept, Mask
from workers.index.codec.mapped import map_index
from workers.index.collection.lookup import Lookup, Run, merge_lookups
from workers.index.collection.segment import Entries, Segment, SegmentPaths, merge_segments, write_segment
from workers.index.collection.text_table import TextTable, write_table

FEATURES = unit_vectors(1_000, 0)
# Of each segment, how many entries it has, and which share of them is kept.
SEGMENTS = ((300, 0.6), (200, 1.0), (1, 0.0), (0, 1.0), (4, 1.0))


@cache
def trained(factory: str) -> Codec:
    return Codec.train(factory, FEATURES)


def entries(codes: Codes, numbers: Sequence[int]) -> Entries:
    return Entries(codes[list(numbers)], map(str, numbers), (f"of {number}" for number in numbers))


def below(folder: Path) -> SegmentPaths:
    folder.mkdir(exist_ok=True)
    return SegmentPaths.below(folder)


def written_by_faiss(codec: Codec, codes: Codes) -> bytes:
    index, writer = codec.filled(codes), faiss.VectorIOWriter()
    if codec.has_cells:
        faiss.write_InvertedLists(Family(index).inner.invlists, writer)
    else:
        faiss.write_index(index, writer)
    return faiss.vector_to_array(writer.data).tobytes()


@pytest.mark.parametrize("which", [[0, 1, 2, 3, 4], [1], [4], [2, 3], []])
@pytest.mark.parametrize("factory", ["IVF16,PQ4x4", "IVF300,Flat", "PCA8,IVF16,SQ8", "Flat", "OPQ4_8,PQ4x4"])
def test_a_merge_writes_the_files_of_one_segment(factory: str, which: list[int], tmp_path: Path) -> None:
    codec, random = trained(factory), np.random.default_rng(0)
    codes = codec.encode(FEATURES)
    parts: list[tuple[Segment, Mask]] = []
    numbers: list[int] = []
    for n in which:
        count, share = SEGMENTS[n]
        paths, its = below(tmp_path / str(n)), range(100 * n, 100 * n + count)
        write_segment(codec, entries(codes, its), paths)
        kept = random.random(count) < share
        parts.append((Segment(paths, codec), kept))
        numbers += np.array(its)[kept].tolist()
    more = range(900, 930) if len(which) != 1 else range(0)
    merged, whole = below(tmp_path / "merged"), below(tmp_path / "whole")
    merge_segments(codec, parts, entries(codes, more), merged)
    write_segment(codec, entries(codes, [*numbers, *more]), whole)
    assert merged.index.read_bytes() == written_by_faiss(codec, codes[[*numbers, *more]])
    for name in ("index", "assets", "meta", "lookup"):
        assert (merged.index.parent / name).read_bytes() == (whole.index.parent / name).read_bytes(), name
    assert {path.name for path in merged.index.parent.iterdir()} == {"index", "assets", "meta", "lookup"}
    segment = Segment(merged, codec)
    assert list(segment.assets) == [str(number) for number in (*numbers, *more)]
    some = np.arange(0, len(segment), 3)
    assert (segment.codes_at(some) == segment.codes[some]).all()
    with pytest.raises(IndexError):
        segment.codes_at(np.array([len(segment.assets)]))


@pytest.mark.parametrize("at_once", [1, 7, 100])
@pytest.mark.parametrize("factory", ["IVF16,PQ4x4", "IVF300,Flat"])
def test_lists_that_are_written_in_many_parts_are_the_same(factory: str, at_once: int, tmp_path: Path) -> None:
    codec, first, parts = trained(factory), 0, list[tuple[object, Kept]]()
    codes = codec.encode(FEATURES)
    for number, (count, every) in enumerate(((300, 3), (0, 1), (200, 1))):
        write_lists(codec, [], codes[:count], tmp_path / str(number))
        parts.append((map_index(codec, tmp_path / str(number)), Kept(np.arange(count) % every == 0, first)))
        first += len(parts[-1][1])
    write_lists(codec, parts, codes[500:600], tmp_path / "parts", at_once)
    expected = written_by_faiss(codec, np.concatenate([codes[:300:3], codes[:200], codes[500:600]]))
    assert (tmp_path / "parts").read_bytes() == expected


def test_a_lookup_that_is_written_in_many_parts_finds_each_id(tmp_path: Path) -> None:
    tables = [[f"{n}-{i}" for i in range(count)] for n, count in enumerate((500, 0, 90))]
    masks = [np.arange(len(table)) % 5 != 2 for table in tables]
    left = [
        name for table, mask in zip(tables, masks, strict=True) for name, kept in zip(table, mask, strict=True) if kept
    ]
    write_table(tmp_path / "assets", left)
    firsts = np.cumsum([0, *(np.count_nonzero(mask) for mask in masks)]).tolist()
    parts = [(Run.of(table), Kept(mask, first)) for table, mask, first in zip(tables, masks, firsts, strict=False)]
    merge_lookups(tmp_path / "parts", parts, at_once=7)
    merge_lookups(tmp_path / "once", [(Run.of(left), Kept(np.ones(len(left), dtype=bool), 0))])
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "once").read_bytes()
    lookup = Lookup(tmp_path / "parts", TextTable(tmp_path / "assets"))
    assert all(lookup.find([name]).tolist() == [position] for position, name in enumerate(left))
    assert not len(lookup.find(["0-2", "none"]))


def test_a_code_of_no_cell_is_refused(tmp_path: Path) -> None:
    codec = trained("IVF300,Flat")
    codes = codec.encode(FEATURES[:2])
    codes[1, :2] = 255
    with pytest.raises(ValueError, match="cell 65535"):
        write_segment(codec, entries(codes, [0, 1]), below(tmp_path))
