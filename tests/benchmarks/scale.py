"""What an addition costs in collections of different sizes: ``python -m tests.benchmarks.scale``.

Codes and centroids are random (IVF4096,PQ8x8, 512-d): costs depend on their numbers only. Files, Redis and S3 are real.
In each collection, seven times 10,000 entries are registered and compacted, while another thread asks at nprobe 1
without a pause; then the eight segments are rewritten as one, which is what every compaction did before there
were tiers. `pause_ms` is the longest that a query took meanwhile (`pause_undelayed_ms` and `pause_least_ms` leave out
what threads waited for a core, so that they mean something on a busy machine: see :mod:`tests.benchmarks.run_delay`),
and `rewrite_memory_mb` what the process took for the rewriting at most, mapped files left out. Searches among eight
segments and among one are made in turns. The last table is computed: an entry is written once, and once more for each
tier that it rises through.
"""

from __future__ import annotations

import ctypes
import json
import math
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import faiss
import numpy as np

from tests.benchmarks.index import DIMENSION, EXTRACTOR, FACTORY, asking, publish, timed
from tests.benchmarks.run_delay import Taken, longest
from tests.collections import Place
from tests.stack import running_stack, settings_of
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.collection.collection import Collection
from workers.index.collection.manifest import Manifest
from workers.index.collection.segments import Segments

EACH: Final = 10_000
ROUNDS: Final = 7
DEPTH: Final = 41  # entries that a query for a verdict asks for
QUERIES: Final = 500
COMPUTED: Final = (10**5, 10**6, 10**7, 10**8, 10**9)


@click.command(help=__doc__)
@click.option("--size", "sizes", multiple=True, type=int, default=(10**5, 10**6, 10**7), show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(sizes: tuple[int, ...], json_path: Path | None) -> None:
    codec, rows = random_codec(), []
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        for size in sizes:
            rows.append(measured(Path(folder), codec, size))
            show(rows[-1])
    computed = [extrapolated(rows[-1], size) for size in COMPUTED]
    for row in computed:
        show(row)
    if json_path:
        json_path.write_text(json.dumps({"measured": rows, "computed": computed}, indent=2) + "\n")


def show(row: dict[str, Any]) -> None:
    click.echo("  ".join(f"{name}={value:.4g}" for name, value in row.items()))


def random_codec() -> Codec:
    """A codec that was not trained: its centroids are random points."""
    random = np.random.default_rng(0)
    index = faiss.index_factory(DIMENSION, FACTORY)
    index.quantizer.add(random.standard_normal((index.nlist, DIMENSION), dtype=np.float32) / math.sqrt(DIMENSION))
    centroids = random.standard_normal(index.pq.M * index.pq.ksub * index.pq.dsub, dtype=np.float32)
    faiss.copy_array_to_vector(0.3 * centroids / math.sqrt(DIMENSION), index.pq.centroids)
    index.is_trained = index.quantizer.is_trained = True
    return Codec(index, FACTORY)


def random_codes(codec: Codec, count: int, seed: int) -> Codes:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 256, (count, codec.code_size), dtype=np.uint8)
    cells = random.integers(0, codec.cells, count, dtype=np.uint16)
    codes[:, : codec.cell_size] = cells.view(np.uint8).reshape(-1, 2)
    return codes


def measured(folder: Path, codec: Codec, size: int) -> dict[str, Any]:
    """One collection: seven compactions of 10,000 additions, then one of the whole."""
    place = Place(f"scale-{size}", settings_of(folder), folder / "cache")
    place.store.ensure_buckets()
    publish(place, codec, random_codes(codec, size, 1))
    collection = place.open(EXTRACTOR)
    query = collection.codec.decode(random_codes(codec, 1, 2))[0]
    grown = [added(place, collection, query, n) for n in range(ROUNDS)]
    many, before = Segments(collection.codec, collection.segments), place.files.current()
    with asking(place, collection, query) as meanwhile, memory_taken() as taken_mb:
        rewrite_s = timed(lambda: place.compact(whole=True))
        collection.follow()
    one = Segments(collection.codec, collection.segments)
    row: dict[str, Any] = {
        "codes": size,
        "add_ms": 1000 * float(np.mean([taken for taken, _, _ in grown])) / EACH,
        "add_bytes": float(np.mean([sent for _, sent, _ in grown])) / EACH,
        **longest("pause", [query for _, _, asked in grown for query in asked]),
        "rewrite_add_ms": 1000 * rewrite_s / EACH,
        "rewrite_add_bytes": new_bytes(place, before, place.files.current()) / EACH,
        **longest("rewrite_pause", meanwhile),
        "rewrite_memory_mb": max(taken_mb),
        "segments": len(many.segments),
    }
    for nprobe in (1, 16):
        row |= searched(collection.codec, one, many, nprobe)
    place.close()
    return row


def added(place: Place, collection: Collection, query: Features, number: int) -> tuple[float, int, list[Taken]]:
    """Register and compact 10,000 entries; seconds of the compaction, bytes written, and the queries meanwhile."""
    before = place.files.current()
    for i, code in enumerate(random_codes(collection.codec, EACH, 10 + number)):
        collection.register(f"new-{number}-{i:05d}", code, {})
    collection.catch_up()
    with asking(place, collection, query) as meanwhile:
        taken = timed(place.compact)
        collection.follow()
    return taken, new_bytes(place, before, place.files.current()), meanwhile


@contextmanager
def memory_taken() -> Iterator[list[float]]:
    """Measures, a hundred times a second, how many megabytes this process has more than at first, files that are mapped
    left out."""
    ctypes.CDLL(None).malloc_trim(0)  # gives back what was freed: it would be taken again unseen
    before, ended = own_memory_mb(), threading.Event()
    taken = [0.0]

    def measure() -> None:
        while not ended.wait(0.01):
            taken.append(own_memory_mb() - before)

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield taken
    finally:
        ended.set()
        thread.join()


def own_memory_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def new_bytes(place: Place, before: Manifest, after: Manifest) -> int:
    """What was written, and is fetched once by each host."""
    return sum(place.files.fetch(digest).stat().st_size for digest in after.digests - before.digests)


def searched(codec: Codec, one: Segments, many: Segments, nprobe: int) -> dict[str, float]:
    """Median milliseconds of a search in one segment and in many, in turns on one thread."""
    faiss.omp_set_num_threads(1)
    probes = codec.probes(codec.decode(random_codes(codec, QUERIES, 3)), nprobe)
    times: dict[str, list[float]] = {"one": [], "many": []}
    for probe in probes:
        for name, segments in (("one", one), ("many", many)):
            segments.best(probe, DEPTH, {})  # both have read the cells
            times[name].append(timed(segments.best, probe, DEPTH, {}))
    medians = {f"search_{name}_ms_{nprobe}": 1000 * float(np.median(taken)) for name, taken in times.items()}
    return medians | {f"many_to_one_{nprobe}": medians[f"search_many_ms_{nprobe}"] / medians[f"search_one_ms_{nprobe}"]}


def extrapolated(row: dict[str, Any], size: int) -> dict[str, float]:
    """What an addition costs in a collection of another size, with tiers and by rewriting the whole."""
    tiers = max(0.0, math.log(size / EACH, 8))
    entry_ms, entry_bytes = (row[name] * EACH / row["codes"] for name in ("rewrite_add_ms", "rewrite_add_bytes"))
    return {
        "codes": size,
        "tiers": tiers,
        "add_ms": row["add_ms"] + tiers * entry_ms,
        "add_bytes": row["add_bytes"] + tiers * entry_bytes,
        "rewrite_add_ms": size * entry_ms / EACH,
        "rewrite_add_bytes": size * entry_bytes / EACH,
    }


if __name__ == "__main__":
    main()
