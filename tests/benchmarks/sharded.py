"""Queries of a collection in shards, beside one worker with all cells: ``python -m tests.benchmarks.sharded``.

Codes and centroids are random (IVF4096,PQ8x8, 512-d): costs depend on their numbers only. Files, Redis and S3 are
real; each shard is a process with one searching thread, and a cache of its own, as on a host. The same queries are
asked, in turns, of one worker with all cells (`alone`), of one shard for its own part (`part`), and of all shards
together (`sharded`): milliseconds at the median and at the 95th percentile, of `Collection.search_many`, and of
`Collection.find` for the part. Extraction, the queue and the document, which a query has besides, are not in it.
`lists_mb` is what each of the other processes has of the inverted lists in memory after that. `fetched_mb` is what each
shard has downloaded, `fetched_lists_mb` what of it are inverted lists, and `…_alone` the same of one worker with all
cells. `alone_cpu_ms`, `part_cpu_ms` and `sharded_cpu_ms` are what a query takes of a core in this process,
`others_cpu_ms` in each of the others: processes that share cores wait for each other, hosts do not. Answers are
compared before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import faiss
import numpy as np

from tasks.shards import Shard
from tests.benchmarks.index import EXTRACTOR, publish, timed
from tests.benchmarks.scale import random_codec, random_codes
from tests.collections import Place
from tests.stack import running_stack, settings_of
from workers.images.compiled import load_kernels
from workers.index.codec.codec import Features
from workers.index.collection.collection import Collection
from workers.index.collection.finder import Sought
from workers.index.collection.open_collections import OpenCollections
from workers.index.shards.answering import ShardServer
from workers.index.shards.asking import ShardPeers
from workers.index.verdicts.score import COHORT, COHORT_CELLS

QUERIES: Final = 1_000
COMPARED: Final = 100
WAIT_S: Final = 10.0


@click.command(help=__doc__)
@click.option("--size", default=10**7, show_default=True)
@click.option("--shards", default=4, show_default=True)
@click.option("--nprobe", "nprobes", multiple=True, type=int, default=(1, 16), show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--serve", nargs=3, hidden=True, help="Shard, collection and folder: what the other processes do.")
def main(
    size: int, shards: int, nprobes: tuple[int, ...], json_path: Path | None, serve: tuple[str, str, str] | None
) -> None:
    faiss.omp_set_num_threads(1)
    load_kernels()
    if serve:
        answer_others(Shard.parse(serve[0]), serve[1], Path(serve[2]))
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        place = Place(f"sharded-{size}", settings_of(Path(folder)), Path(folder) / "cache")
        place.store.ensure_buckets()
        codec = random_codec()
        publish(place, codec, random_codes(codec, size, 1))
        place.open(EXTRACTOR)  # downloads
        rows = measured(place, Path(folder), shards, nprobes)
        place.close()
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


def measured(place: Place, folder: Path, shards: int, nprobes: tuple[int, ...]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    own = Shard(1, shards)
    together = opened(place, own)
    queries = together.codec.decode(random_codes(together.codec, QUERIES, 3))
    with serving(place, folder, own.all[1:]) as processes:
        for nprobe in nprobes:
            before = [cpu_s(process.pid) for process in processes]
            rows.append(compared(place, together, own, queries, nprobe))
            spent = [cpu_s(process.pid) - of_it for process, of_it in zip(processes, before, strict=True)]
            rows[-1]["others_cpu_ms"] = 1000 * float(np.mean(spent)) / (COMPARED + len(queries))
        lists = [lists_of(place, together, shard) for shard in own.all]
        memory = [resident_mb(process.pid, file) for process, file in zip(processes, lists[1:], strict=True)]
    files = {"lists_mb": memory, **fetched(place, together, own, lists)}
    rows = [row | files for row in rows]
    for row in rows:
        click.echo("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))
    return rows


def fetched(place: Place, collection: Collection, own: Shard, lists: list[Path]) -> dict[str, Any]:
    """Megabytes that one worker with all cells has downloaded, and that each shard has."""
    whole = lists_of(place, collection, None)
    caches = [cache_of(place, shard) for shard in own.all]
    return {
        "fetched_mb_alone": size_mb(*place.cache.iterdir()),
        "fetched_lists_mb_alone": size_mb(whole),
        "fetched_mb": [size_mb(*cache.iterdir()) for cache in caches],
        "fetched_lists_mb": [size_mb(file) for file in lists],
    }


def size_mb(*files: Path) -> float:
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def opened(place: Place, shard: Shard | None) -> Collection:
    return collections_of(place, shard).get(place.name)


def collections_of(place: Place, shard: Shard | None) -> OpenCollections:
    peers = ShardPeers(place.redis, shard, WAIT_S) if shard else None
    return OpenCollections(place.store, place.redis, cache_of(place, shard), EXTRACTOR, peers)


def cache_of(place: Place, shard: Shard | None) -> Path:
    """A shard's own, as it would be on a host of its own."""
    return place.cache.with_name(f"{place.cache.name}-{shard.number}") if shard else place.cache


def lists_of(place: Place, collection: Collection, shard: Shard | None) -> Path:
    """The local file of inverted lists."""
    return cache_of(place, shard) / collection.manifest.segments[0].copies(shard)[0]


def compared(place: Place, together: Collection, own: Shard, queries: Features, nprobe: int) -> dict[str, Any]:
    """All three, in turns: a busy moment of the machine meets all."""
    alone, part = opened(place, None), Part(opened(place, None), own, nprobe)
    for query in queries[:COMPARED, None]:  # and reads what is not in memory
        one, other = (c.search_many(query, 10, nprobe)[0] for c in (alone, together))
        assert (one.matches, one.evidence) == (other.matches, other.evidence)
    taken: dict[str, list[float]] = {"alone": [], "part": [], "sharded": []}
    cpu_ms = dict.fromkeys(taken, 0.0)
    for query in queries[:, None]:
        for name, call in (
            ("alone", partial(alone.search_many, query, 10, nprobe)),
            ("part", partial(part.search, query)),
            ("sharded", partial(together.search_many, query, 10, nprobe)),
        ):
            before = time.process_time()
            taken[name].append(timed(call))
            cpu_ms[name] += 1000 * (time.process_time() - before) / len(queries)
    row: dict[str, Any] = {"codes": len(alone), "shards": own.count, "nprobe": nprobe}
    for name, times in taken.items():
        row |= {f"{name}_ms": 1000 * float(np.median(times)), f"{name}_p95_ms": 1000 * float(np.quantile(times, 0.95))}
    row |= {f"{name}_cpu_ms": spent for name, spent in cpu_ms.items()}
    return row | {"p95_to_alone": row["sharded_p95_ms"] / row["alone_p95_ms"]}


class Part:
    """What one shard does for a query."""

    def __init__(self, collection: Collection, shard: Shard, nprobe: int) -> None:
        self._collection = collection
        self._shard = shard
        self._nprobe = nprobe
        self._pointer = collection.pointer

    def search(self, query: Features) -> None:
        around = self._collection.codec.probe(query[0], max(self._nprobe, COHORT_CELLS))
        sought = [Sought(around, COHORT + 11), Sought(around, COHORT + 1, distractors=True)]
        self._collection.find(self._pointer, sought, self._shard)


@contextmanager
def serving(place: Place, folder: Path, shards: list[Shard]) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each shard."""
    command = [sys.executable, "-m", "tests.benchmarks.sharded", "--serve"]
    processes = [
        subprocess.Popen([*command, str(s), place.name, str(folder)], stdout=subprocess.PIPE, text=True) for s in shards
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def answer_others(shard: Shard, name: str, folder: Path) -> NoReturn:
    place = Place(name, settings_of(folder), folder / "cache")
    collections = collections_of(place, shard)
    collections.get(name)
    click.echo("ready")
    server = ShardServer(place.redis, collections, shard)
    while True:
        server.serve_once()


def cpu_s(pid: int) -> float:
    """What a process has taken of a core so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int, file: Path) -> float:
    """How much of a mapped file a process has in memory."""
    inside, kib = False, 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            inside = line.endswith(file.name)
        elif inside and line.startswith("Rss:"):
            kib += int(line.split()[1])
    return kib * 1024 / 1e6


if __name__ == "__main__":
    main()
