"""What machine code finds in inverted lists is what plain FAISS finds in one index of the same codes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collections import unit_vectors
from workers.index.codec.codec import Codec, Codes
from workers.index.codec.family import Family
from workers.index.codec.mapped import map_index, write_index
from workers.index.codec.mapped_lists import ListsBehindEachOther, MappedLists
from workers.index.codec.probes import Probe, batched, search_cells
from workers.index.codec.scan import Scan

FEATURES = unit_vectors(3_000, 0)
QUERIES = unit_vectors(12, 1)
FACTORIES = ["IVF16,PQ8x8", "OPQ8_16,IVF40,PQ8x8"]


@cache
def trained(factory: str) -> Codec:
    return Codec.train(factory, FEATURES)


def lists_of(folder: Path, codec: Codec, parts: list[Codes]) -> list[MappedLists]:
    opened = []
    for number, codes in enumerate(parts):
        write_index(codec, [], codes, folder / str(number))
        opened.append(MappedLists(map_index(codec, folder / str(number))))
    return opened


def check(codec: Codec, parts: list[Codes], probes: list[Probe], k: int, folder: Path) -> None:
    lists, batch = lists_of(folder, codec, parts), batched(probes)
    distances, labels = Scan(codec.shells, lists).search(batch, k)
    filled = codec.filled(np.concatenate(parts))  # which keeps what is inside
    whole = Family(filled).inner
    expected, _ = search_cells(whole, batch, k)
    every, positions = search_cells(whole, batch, max(1, whole.ntotal))
    found = labels >= 0
    assert (found == (expected < np.finfo(np.float32).max)).all()
    assert np.allclose(distances[found], expected[found], atol=1e-5)
    assert (distances[:, :-1] <= distances[:, 1:]).all()
    firsts = np.cumsum([0, *map(len, parts)])
    for query, (row, names) in enumerate(zip(distances, labels, strict=True)):
        kept = names[names >= 0]
        numbers, places = ListsBehindEachOther(lists).at(kept >> 32, kept & 0xFFFFFFFF)
        its = (firsts[numbers] + places).tolist()
        assert len(set(its)) == len(its)
        told = dict(zip(positions[query].tolist(), every[query].tolist(), strict=True))
        assert np.allclose([told[position] for position in its], row[: len(its)], atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.data())
@pytest.mark.parametrize("factory", FACTORIES)
def test_it_finds_what_plain_faiss_finds(
    factory: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    codec = trained(factory)
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 7, 60, 400]), min_size=1, max_size=4), label="sizes")
    codes = codec.encode(FEATURES[: sum(sizes)]) if sum(sizes) else np.empty((0, codec.code_size), np.uint8)
    cells = data.draw(st.integers(1, 16), label="cells")
    probes = codec.probes(QUERIES[: data.draw(st.integers(1, len(QUERIES)), label="queries")], cells)
    fewer = [probe.of_nearest(data.draw(st.integers(1, cells), label="fewer")) for probe in probes]
    k = data.draw(st.sampled_from([1, 2, 5, 41, 500]), label="k")
    check(codec, np.split(codes, np.cumsum(sizes)[:-1]), fewer, k, tmp_path_factory.mktemp("lists"))


def test_of_equal_codes_each_is_found(tmp_path: Path) -> None:
    codec = trained(FACTORIES[0])
    codes = np.repeat(codec.encode(FEATURES[:3]), 30, axis=0)
    check(codec, [codes[:40], codes[40:]], codec.probes(QUERIES, 16), 20, tmp_path)
    check(codec, [codes[:40], codes[40:]], codec.probes(QUERIES, 16), 100, tmp_path)


@pytest.mark.parametrize(
    ("factory", "scanned"),
    [*((factory, True) for factory in FACTORIES), ("IVF16,PQ4x8", False), ("IVF16,PQ8x4", False), ("IVF16,SQ8", False)],
)
def test_codes_of_eight_bytes_are_searched_by_machine_code(factory: str, scanned: bool) -> None:
    terms = trained(factory).shells.terms
    assert (terms is not None) is scanned
    if terms is not None:
        assert terms.shape == (trained(factory).cells, 8 * 256)
