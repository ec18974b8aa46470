"""Which cells are whose, and which shards lack a worker."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.monitoring.presence import WorkerNote
from tasks.monitoring.problems import problems_of
from tasks.settings import Settings
from tasks.shards import Shard, absent_shards
from tests.unit.test_problems import health, worker
from workers.index.codec.hosts import hosts_for
from workers.index.codec.plan import Proposal


@pytest.mark.parametrize(("count", "cells"), [(1, 16), (3, 16), (4, 4096), (7, 5)])
def test_each_cell_is_one_shards_and_its_cells_are_neighbours(count: int, cells: int) -> None:
    assert [cell for shard in Shard(1, count).all for cell in shard.cells(cells)] == list(range(cells))


def test_no_shard_has_more_cells_than_another_but_one() -> None:
    sizes = {len(shard.cells(4_099)) for shard in Shard(1, 7).all}
    assert max(sizes) - min(sizes) == 1


def test_shards_without_a_worker_are_named_for_each_number_of_shards() -> None:
    assert absent_shards(["", ""]) == []
    assert absent_shards(["1/2", "2/2", "", "2/2"]) == []
    assert absent_shards(["2/3", "1/2", ""]) == [Shard(2, 2), Shard(1, 3), Shard(3, 3)]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/", "a/b", "1/4 ", "1/1000"])
def test_what_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard"):
        Shard.parse(text)
    with pytest.raises(ValidationError):
        WorkerNote.model_validate(worker().model_dump() | {"shard": text})


def test_a_worker_has_all_cells_unless_it_is_told_which() -> None:
    assert Settings().shard == ""
    assert Settings(shard=" 2/4 ").shard == "2/4"


def test_a_shard_without_a_worker_is_a_severe_problem_and_named() -> None:
    (found,) = problems_of(health(workers=[worker(shard="1/2"), worker()]), Settings())
    assert (found.code, found.severity) == ("shard_without_worker", "severe")
    assert "2/2" in found.title
    assert "aii worker --shard 2/2" in found.detail
    assert problems_of(health(workers=[worker(shard="1/2"), worker(shard="2/2")]), Settings()) == []


@pytest.mark.parametrize(
    ("factory", "gib", "shards"),
    [
        ("IVF65536,PQ8x8", 64, 1), ("IVF65536,PQ8x8", 16, 2), ("IVF65536,PQ8x8", 4, 7), ("PQ8x8", 64, 1),
        ("PQ8x8", 4, None),
    ],
)  # fmt: skip
def test_an_index_is_divided_when_its_lists_do_not_fit_into_a_hosts_memory(
    factory: str, gib: int, shards: int | None
) -> None:
    found = hosts_for(proposal(factory), 10**9, gib * 2**30)
    assert found.shards == shards
    assert (found.redis_commands > 0) == (shards is not None and shards > 1)


def proposal(factory: str) -> Proposal:
    """Of a thousand million images of 106 bytes, of which 16 are in the inverted lists."""
    return Proposal(factory=factory, code_bytes=10, file_bytes=106 * 10**9, search_ms=1.0, nprobe=16, reasons=[])


@pytest.mark.parametrize(
    ("factory", "gib", "fetched_gb"),
    [
        ("IVF65536,PQ8x8", 64, 106), ("IVF65536,PQ8x8", 16, 90 + 16 / 2), ("IVF65536,PQ8x8", 4, 90 + 16 * 10 / 64),
        ("PQ8x8", 64, 106), ("PQ8x8", 4, 106),
    ],
)  # fmt: skip
def test_a_hosts_disk_takes_all_tables_and_its_blocks_of_the_lists_twice(
    factory: str, gib: int, fetched_gb: float
) -> None:
    hosts = hosts_for(proposal(factory), 10**9, gib * 2**30)
    assert hosts.disk_bytes == pytest.approx(2e9 * fetched_gb, rel=1e-6)
    assert hosts.whole_disk_bytes == 2 * 106 * 10**9
