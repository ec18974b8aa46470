"""A collection from ten thousand to ten million codes: ``python -m tests.benchmarks.index [--json F] [--plot F]``.

Features are synthetic (points around 50,000 random directions, 512-d); a codec IVF4096,PQ8x8 is trained on 160,000 of
them and encodes 200,000; more codes than that are drawn column by column from theirs, and `encode_s` is what encoding
them would take at the same speed. `write_s` is the segment, its upload and publication. Files, Redis and S3 are real;
what is opened and asked is asked in a process of its own, on one thread: `resident_mb_more` is its memory after 4,000
searches over what it had before the collection was opened, libraries loaded. `compact_asked_s` is a
second compaction in the very process that is asked without a pause meanwhile, as it may be in a worker. Of the longest
queries, `…_undelayed_ms` and `…_least_ms` leave out what threads waited for a core: see
:mod:`tests.benchmarks.run_delay`.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from tasks.results import ExtractorIdentity
from tests.benchmarks.run_delay import RunDelays, Taken, longest
from tests.collections import Place, anyway
from tests.stack import running_stack, settings_of
from workers.commands.worker import SWITCH_S
from workers.images.compiled import load_kernels
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.collection.collection import Collection
from workers.index.collection.segment import Hit
from workers.index.collection.segments import Segments
from workers.index.maintenance.build import NewCollection, publish_first

DIMENSION: Final = 512
FACTORY: Final = "IVF4096,PQ8x8"
EXTRACTOR: Final = ExtractorIdentity(name="synthetic", sha256="1" * 64, dimension=DIMENSION)
ADDED: Final = 5_000


@click.command(help=__doc__)
@click.option("--size", "sizes", multiple=True, type=int, default=(10_000, 100_000, 1_000_000, 10_000_000))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the growth into this file.")
@click.option("--ask", nargs=3, hidden=True, help="Collection, cache and queries: what the other process does.")
def main(sizes: tuple[int, ...], json_path: Path | None, plot: Path | None, ask: tuple[str, str, str] | None) -> None:
    if ask:
        click.echo(json.dumps(asked(*ask)))
        return
    features = synthetic(200_000, 0)
    began = time.perf_counter()
    codec = Codec.train(FACTORY, features[:160_000])
    train_s = time.perf_counter() - began
    began = time.perf_counter()
    codes = codec.encode(features)
    encode_s = (time.perf_counter() - began) / len(features)
    flat_ms = flat_search_ms(features, 1_000_000)
    click.echo(f"Without an index, a search among 1,000,000 features takes {flat_ms:.1f} ms on one thread.")
    rows = []
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        np.save(Path(folder, "queries.npy"), synthetic(200_000, 0)[:1_000] + 0.005 * synthetic(1_000, 2))
        for size in sizes:
            row = {"codes": size, "train_s": train_s, "encode_s": encode_s * size}
            row |= measured(Path(folder), codec, drawn(codes, size))
            row["flat_ms"] = flat_ms * size / 1_000_000
            rows.append(row)
            click.echo("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")
    if plot:
        draw(rows, plot)


def synthetic(count: int, seed: int) -> Features:
    """Unit vectors around 50,000 directions, which are always the same."""
    centres = np.random.default_rng(99).standard_normal((50_000, DIMENSION), dtype=np.float32)
    random = np.random.default_rng(seed)
    noise = 0.7 * random.standard_normal((count, DIMENSION), dtype=np.float32)
    values = centres[random.integers(0, len(centres), count)] + noise
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def drawn(codes: Codes, count: int) -> Codes:
    """The first codes unchanged, then others with a known cell, each byte drawn from those that occur at its place."""
    random = np.random.default_rng(3)
    more = max(0, count - len(codes))
    cells = codes[random.integers(0, len(codes), more), :2]
    columns = [codes[random.integers(0, len(codes), more), column] for column in range(2, codes.shape[1])]
    return np.concatenate([codes[:count], np.column_stack([cells, *columns])]) if more else codes[:count]


def flat_search_ms(features: Features, count: int) -> float:
    """Median of a search on one thread without an index, over `count` features (some of them several times)."""
    import faiss  # noqa: PLC0415  # after torch

    flat = faiss.IndexFlatL2(DIMENSION)
    for _ in range(count // len(features)):
        flat.add(features)
    faiss.omp_set_num_threads(1)
    times = [timed(flat.search, features[i : i + 1], 5) for i in range(20)]
    faiss.omp_set_num_threads(2)
    return 1000 * float(np.median(times))


def measured(folder: Path, codec: Codec, codes: Codes) -> dict[str, Any]:
    """Build, open, ask, add, compact and swap one collection."""
    place = Place(f"scale-{len(codes)}", settings_of(folder), folder / "cache")
    place.store.ensure_buckets()
    write_s = timed(publish, place, codec, codes)
    size = place.files.size(place.files.current())
    place.open(EXTRACTOR)  # downloads: the process that is measured finds the files on its disk, as after a restart
    command = [sys.executable, "-m", "tests.benchmarks.index", "--ask", place.name, str(folder), "queries.npy"]
    answers = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    changed = added_compacted_and_swapped(place, codes[:ADDED])
    place.close()
    return {"write_s": write_s, "file_mb": size / 1e6, **answers, **changed}


def publish(place: Place, codec: Codec, codes: Codes) -> None:
    assets = [f"asset-{i:08d}" for i in range(len(codes))]
    publish_first(place.files, place.journal, NewCollection(place.name, codec, EXTRACTOR), assets, codes, anyway)


def asked(name: str, folder: str, queries_name: str) -> dict[str, Any]:
    """Open the collection in this fresh process and ask a thousand times, at nprobe 1 and at 16."""
    import faiss  # noqa: PLC0415

    faiss.omp_set_num_threads(1)
    place = Place(name, settings_of(Path(folder)), Path(folder) / "cache")
    queries = np.load(Path(folder, queries_name))
    load_kernels()
    before_mb = resident_mb()
    began = time.perf_counter()
    collection = place.open(EXTRACTOR)
    figures: dict[str, Any] = {"open_s": time.perf_counter() - began}
    (segment,) = collection.segments
    segments = Segments(collection.codec, [segment])
    for nprobe in (1, 16):
        times = [timed(collection.search, query, 5, nprobe) for query in queries]
        figures |= {f"query_p{p}_ms_nprobe_{nprobe}": 1000 * float(np.percentile(times, p)) for p in (50, 95)}
        bare = [timed(search_segment, collection.codec, segments, query, nprobe) for query in queries]
        figures[f"search_ms_nprobe_{nprobe}"] = 1000 * float(np.median(bare))
    batch = queries[:200]
    for nprobe in (1, 16):
        figures[f"lookups_per_s_nprobe_{nprobe}"] = len(batch) / min(
            timed(collection.search_many, batch, 5, nprobe) for _ in range(3)
        )
    figures["resident_mb_more"] = resident_mb() - before_mb
    plain = collection.codec.filled(segment.codes)
    figures["plain_faiss_ms_nprobe_1"] = 1000 * float(np.median([timed(plain.search, q[None], 5) for q in queries]))
    figures["same_as_plain_faiss"] = float(np.mean([same(collection, plain, query) for query in queries]))
    return figures


def search_segment(codec: Codec, segments: Segments, query: Features, nprobe: int) -> list[Hit]:
    return segments.best(codec.probe(query, nprobe), 5, {})


def same(collection: Collection, plain: Any, query: Features) -> bool:
    distances = [match.distance for match in collection.search(query, 5, 1).matches]
    return bool(np.allclose(distances, plain.search(query[None], 5)[0][0][: len(distances)], atol=1e-5))


def added_compacted_and_swapped(place: Place, codes: Codes) -> dict[str, Any]:
    collection = place.open(EXTRACTOR)
    query = collection.codec.decode(codes[:1])[0]
    began = time.perf_counter()
    for i, code in enumerate(codes):
        collection.register(f"new-{i}", code, {})
    add_s = time.perf_counter() - began
    catch_up_s = timed(collection.search, query, 5, 1)
    compact_s = timed(place.compact)
    with asking(place, collection, query) as during_swap:
        follow_s = timed(collection.follow)
    for i, code in enumerate(codes):
        collection.register(f"newer-{i}", code, {})
    with asking(place, collection, query) as during_compaction:
        compact_asked_s = timed(place.compact)
    return {
        "adds_per_s": len(codes) / add_s, "catch_up_ms": 1000 * catch_up_s, "compact_s": compact_s,
        "compact_asked_s": compact_asked_s,
        "query_p95_ms_compacting": 1000 * float(np.percentile([query.clock_s for query in during_compaction], 95)),
        **longest("query_max_compacting", during_compaction),
        "swap_s": follow_s, **longest("swap_pause", during_swap),
    }  # fmt: skip


@contextmanager
def asking(place: Place, collection: Collection, query: Features) -> Iterator[list[Taken]]:
    """Ask from another thread without a pause; what each query took."""
    taken: list[Taken] = []
    done = threading.Event()
    redis_pid = int(place.redis.info("server")["process_id"])

    def ask() -> None:
        with closing(RunDelays(redis_pid)) as delays:
            while not done.is_set() or not taken:
                taken.append(delays.timed(collection.search, query, 5, 1))

    thread = threading.Thread(target=ask)
    with as_in_a_worker():
        thread.start()
        try:
            yield taken
        finally:
            done.set()
            thread.join()


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """What is compiled is loaded, garbage collections leave out what there was before, and threads wait for each other
    for as long."""
    load_kernels()
    gc.collect()
    gc.freeze()
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
        gc.unfreeze()


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """How a search, opening, memory and compaction grow with the number of codes."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # of the evaluation extra

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    times, sizes = figure.subplots(1, 2)
    codes = [row["codes"] for row in rows]
    for name, label in (
        ("search_ms_nprobe_1", "search, nprobe 1"), ("search_ms_nprobe_16", "search, nprobe 16"),
        ("query_p95_ms_nprobe_1", "with the journal, p95"), ("flat_ms", "search without an index"),
    ):  # fmt: skip
        times.loglog(codes, [row[name] for row in rows], marker="o", label=label)
    for name, label in (("file_mb", "files, MB"), ("resident_mb_more", "resident, MB"), ("compact_s", "compaction, s")):
        sizes.loglog(codes, [row[name] for row in rows], marker="o", label=label)
    times.set(title="Milliseconds, one thread", xlabel="codes")
    sizes.set(title="Space, and the time of a compaction", xlabel="codes")
    for axes in (times, sizes):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
