"""Parts of files of inverted lists: FAISS finds in them what is in the whole file, and any changed byte is told."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import pytest

from tasks.shards import Shard
from tests.collections import unit_vectors
from workers.index.codec.codec import Codec
from workers.index.codec.family import Family
from workers.index.codec.inverted_lists import numbers_of, write_header
from workers.index.codec.kept import Kept
from workers.index.codec.list_blocks import Layout, Part, block_digests, header_bytes, largest_part, part_of
from workers.index.codec.mapped import map_index, write_index

FEATURES = unit_vectors(1_000, 0)
NONE: list[tuple[object, Kept]] = []


@cache
def trained(factory: str) -> Codec:
    return Codec.train(factory, FEATURES)


def written(folder: Path, factory: str, count: int) -> Path:
    """A file of inverted lists of so many entries."""
    codec, path = trained(factory), folder / "whole"
    write_index(codec, NONE, codec.encode(FEATURES[:count]), path)
    return path


def cut(whole: Path, shard: Shard) -> tuple[Part, Path]:
    """What a shard has of a file, written as it is when it is downloaded."""
    found = block_digests(whole)
    assert found
    cells, digests = found
    part, path = part_of(shard.cells(cells), digests, cells), whole.with_name(f"part-{shard.number}-{shard.count}")
    data = whole.read_bytes()
    layout = Layout.read(data[: header_bytes(cells)], cells, len(data))
    start, end = layout.span(part.cells)
    part.write(path, layout, [data[start:end]])
    return part, path


def lists_in(codec: Codec, path: Path) -> list[tuple[list[int], bytes]]:
    """Positions and codes of each cell."""
    index = map_index(codec, path)  # which owns its lists
    lists = Family(index).inner.invlists
    size = codec.code_size - codec.cell_size
    return [
        (
            faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell)).tolist(),
            faiss.rev_swig_ptr(lists.get_codes(cell), lists.list_size(cell) * size).tobytes(),
        )
        if lists.list_size(cell)
        else ([], b"")
        for cell in range(lists.nlist)
    ]


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize(
    ("factory", "count"), [("IVF16,PQ4x4", 1_000), ("IVF16,PQ4x4", 3), ("IVF300,PQ4x4", 1_000), ("IVF300,Flat", 50)]
)
def test_a_part_has_the_lists_of_its_cells_and_no_others(factory: str, count: int, shards: int, tmp_path: Path) -> None:
    whole = written(tmp_path, factory, count)
    expected = lists_in(trained(factory), whole)
    for shard in Shard(1, shards).all:
        part, path = cut(whole, shard)
        assert set(shard.cells(len(expected))) <= set(part.cells)
        with path.open("rb") as file:
            assert part.is_in(file)
        found = lists_in(trained(factory), path)
        assert all(one == (expected[cell] if cell in part.cells else ([], b"")) for cell, one in enumerate(found))


def test_shards_of_a_power_of_two_fetch_no_cell_twice_and_others_hardly_any() -> None:
    for cells in (64, 4_096, 65_536):
        digests = [str(number) for number in range(64)]
        for shards in (2, 4, 16, 64):
            parts = [part_of(shard.cells(cells), digests, cells) for shard in Shard(1, shards).all]
            assert [cell for part in parts for cell in part.cells] == list(range(cells))
        for shards in (3, 7):
            parts = [part_of(shard.cells(cells), digests, cells) for shard in Shard(1, shards).all]
            assert max(len(part.blocks) for part in parts) <= 64 / shards + 2
            assert len({part.name for part in parts}) == shards


def test_a_part_with_any_byte_changed_or_cut_off_is_another(tmp_path: Path) -> None:
    for count in (3, 60):  # the header names lists that have entries, and all
        whole = written(tmp_path, "IVF16,PQ4x4", count)
        part, path = cut(whole, Shard(2, 4))
        data = path.read_bytes()
        damaged = [data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :] for at in range(len(data))]
        for other in (*damaged, data[:-1], data + b"\0", b"", data[:20], whole.read_bytes()):
            path.write_bytes(other)
            with path.open("rb") as file:
                assert not part.is_in(file)


def test_the_same_lists_in_other_cells_have_other_digests(tmp_path: Path) -> None:
    codec = trained("IVF16,PQ4x4")
    code = codec.encode(FEATURES[:1])
    digests = []
    for cell in (4, 12):
        code[0, 0] = cell
        write_index(codec, NONE, code, tmp_path / "whole")
        digests.append((block_digests(tmp_path / "whole") or (0, []))[1])
    assert digests[0][4] != digests[1][12]
    assert digests[0][0] == digests[1][0]  # nothing is in that one


@pytest.mark.parametrize(
    "head",
    [
        b"", b"ilar", b"IwPQ" + bytes(60), numbers_of(1),
        b"ilar" + numbers_of(16, 4) + b"full" + numbers_of(16, *[1] * 15),
        b"ilar" + numbers_of(16, 4) + b"full" + numbers_of(15, *[1] * 15),
        b"ilar" + numbers_of(16, 4) + b"sprs" + numbers_of(3, 1, 1, 1),
        b"ilar" + numbers_of(16, 4) + b"sprs" + numbers_of(2, 16, 1),
        b"ilar" + numbers_of(16, 4) + b"sprs" + numbers_of(2, 2**63, 1),
        b"ilar" + numbers_of(16, 4) + b"sprs" + numbers_of(2, 1, 2**63),
        b"ilar" + numbers_of(16, 4) + b"sprs" + numbers_of(2, 1, 2**62),
        b"ilar" + numbers_of(16, 4) + b"none" + numbers_of(0),
        b"ilar" + numbers_of(16, 4) + b"full" + numbers_of(2**64 - 1),
        b"ilar" + numbers_of(16, 2**64 - 1) + b"sprs" + numbers_of(0),
        b"ilar" + numbers_of(2**64 - 1, 4) + b"full" + numbers_of(0),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_its_file_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Layout.read(head, 16, 1_000)


def test_an_index_without_cells_has_no_blocks(tmp_path: Path) -> None:
    codec = trained("PQ4x4")
    write_index(codec, NONE, codec.encode(FEATURES), tmp_path / "flat")
    assert block_digests(tmp_path / "flat") is None


def test_a_header_is_no_longer_than_is_read_of_it() -> None:
    for filled in (0, 1, 7, 8, 9, 16):
        sizes, file = np.array([1] * filled + [0] * (16 - filled)), io.BytesIO()
        write_header(file, sizes, 4)
        assert len(file.getvalue()) <= header_bytes(16)
        layout = Layout.read(file.getvalue(), 16, len(file.getvalue()) + 12 * filled)
        assert (layout.sizes == sizes).all()


@pytest.mark.parametrize(
    ("shards", "cells", "blocks", "most"),
    [(1, 16, 16, 16), (4, 4_096, 64, 16), (3, 4_096, 64, 22), (7, 65_536, 64, 10), (48, 4_096, 64, 2),
     (64, 4_096, 64, 1), (100, 4_096, 64, 2), (100, 16, 16, 1), (10**12, 65_536, 64, 1)],
)  # fmt: skip
def test_the_largest_part_is_as_many_blocks_as_the_shard_fetches_that_fetches_most(
    shards: int, cells: int, blocks: int, most: int
) -> None:
    assert largest_part(shards, cells) == most / blocks
    digests = [str(number) for number in range(blocks)]
    fetched = [len(part_of(shard.cells(cells), digests, cells).blocks) for shard in Shard(1, min(shards, 999)).all]
    assert max(fetched) in (most, 2)  # of the most shards that there may be, more than cells are not tried
