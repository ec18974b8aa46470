"""How much memory `aii evaluate` takes for many references: ``python -m tests.benchmarks.evaluation``.

Features are drawn at random and mapped from disk, as those of images are; then the same code trains, encodes and asks.
What is mapped can be dropped by the system at any time; `anonymous` is what has to stay in memory.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from workers.evaluation.detection import detect
from workers.evaluation.extraction import mapped
from workers.evaluation.searching import Index, exact_first_matches
from workers.index.codec.codec import Codec, Features
from workers.index.codec.trainable import training_sample
from workers.index.maintenance.build import encode_all

EDITS = 14
CHUNK = 50_000
SAMPLED_EVERY_S = 0.05


@click.command(help=__doc__)
@click.option("--references", default=1_000_000, show_default=True)
@click.option("--images", default=10_000, show_default=True, help="Each is asked for in fourteen edits.")
@click.option("--dimension", default=512, show_default=True)
@click.option("--factory", "factories", multiple=True, default=("IVF4096,PQ8x8", "IVF1024,Flat"), show_default=True)
@click.option("--trained-on", default=100_000, show_default=True, help="Of the sample that is in memory, to save time.")
@click.option("--exactly", default=4_096, show_default=True, help="Queries that are compared with every reference.")
def main(
    references: int, images: int, dimension: int, factories: tuple[str, ...], trained_on: int, exactly: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        features = drawn(Path(folder, "references"), references, dimension, 0)
        registered = drawn(Path(folder, "registered"), images, dimension, 1)
        queries = np.concatenate([registered + 0.02 * np.float32(edit) / EDITS for edit in range(EDITS)])
        with measured(f"comparing {exactly:,} of {len(queries):,} queries with {references:,} features"):
            exact_first_matches(features, np.asarray(registered), queries[:exactly])
        for factory in factories:
            ask(factory, features, np.asarray(registered), queries, trained_on)


def ask(factory: str, features: Features, registered: Features, queries: Features, trained_on: int) -> None:
    """What the evaluation does for one index, passive."""
    with measured(f"training {factory} on {trained_on:,} of {len(features):,}"):
        codec = Codec.train(factory, training_sample(features)[:trained_on])
    with measured(f"encoding for {factory}, and asking {len(queries):,} times at nprobe 1"):
        index = Index(codec, encode_all(codec, features), codec.encode(registered))
        first = index.first_matches(queries, 1)
        right = np.tile(np.arange(len(registered)), EDITS)
        detect(first, right, index.first_matches(queries[: len(registered)], 1))


def drawn(path: Path, count: int, dimension: int, seed: int) -> Features:
    """Unit vectors (count, dimension) around a thousand centres, on disk."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((1_000, dimension), dtype=np.float32)
    with path.open("wb") as file:
        for start in range(0, count, CHUNK):
            values = random.standard_normal((min(CHUNK, count - start), dimension), dtype=np.float32)
            values += centres[random.integers(0, len(centres), len(values))]
            file.write((values / np.linalg.norm(values, axis=1, keepdims=True)).tobytes())
    return mapped(path, dimension)


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print the time and the most memory that was taken meanwhile."""
    done, peaks = threading.Event(), {"RssAnon": 0, "VmRSS": 0}

    def watch() -> None:
        while not done.wait(SAMPLED_EVERY_S):
            for name, mib in resident().items():
                peaks[name] = max(peaks[name], mib)

    watcher, began = threading.Thread(target=watch), time.monotonic()
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    seconds = time.monotonic() - began
    click.echo(
        f"{what}: {seconds:.0f} s, {peaks['RssAnon']:,} MiB anonymous, {peaks['VmRSS']:,} MiB with what is mapped"
    )


def resident() -> dict[str, int]:
    """MiB of this process, by kind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kinds = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return {name: int(kinds[name].split()[0]) // 1024 for name in ("RssAnon", "VmRSS")}


if __name__ == "__main__":
    main()
