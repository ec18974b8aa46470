"""Twenty generations under a thousand queries: is every answer whole, and does the memory come back?

``python -m tests.benchmarks.swaps [--size N] [--swaps N]``: a process follows a collection while four of its threads
ask it, and another process compacts it, again as soon as the last generation is current there. Codes are random;
files, Redis, S3 and memory are real. Of the longest query, two more figures leave out what threads waited for a core:
see :mod:`tests.benchmarks.run_delay`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

import click
import numpy as np

from tests.benchmarks.index import as_in_a_worker, resident_mb
from tests.benchmarks.run_delay import RunDelays, Taken, longest
from tests.collections import EXTRACTOR, Place, add, trained_codec, unit_vectors
from tests.stack import running_stack, settings_of
from tests.waiting import wait_for
from workers.index.collection.collection import READ_S
from workers.index.collection.follower import Follower
from workers.index.collection.open_collections import OpenCollections

THREADS: Final = 4
NEW: Final = unit_vectors(1_000, 1)


@click.command(help=__doc__)
@click.option("--size", default=500_000, show_default=True, help="Codes in the collection.")
@click.option("--swaps", default=20, show_default=True)
@click.option("--queries", default=1_000, show_default=True, help="At least so many meanwhile.")
@click.option("--ask", nargs=3, hidden=True, help="Collection, folder, generation: what the other process does.")
def main(size: int, swaps: int, queries: int, ask: tuple[str, str, str] | None) -> None:
    if ask:
        name, state, last = ask
        follow_and_ask(Place(name, settings_of(Path(state)), Path(state) / "cache"), int(last), queries)
        return
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        place = Place("swapped", settings_of(Path(folder)), Path(folder) / "cache")
        place.store.ensure_buckets()
        codes = np.random.default_rng(0).integers(0, 16, (size, trained_codec().code_size), dtype=np.uint8)
        place.publish(trained_codec(), [f"asset-{i:08d}" for i in range(size)], codes)
        writer = place.open()
        add(writer, "new-0", NEW[0])
        arguments = ("--queries", str(queries), "--ask", place.name, folder, str(1 + swaps))
        command = [sys.executable, "-m", "tests.benchmarks.swaps", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for i in range(1, 1 + swaps):
            process.stdout.readline()  # the last generation is current there
            add(writer, f"new-{i}", NEW[i])
            place.compact()
        click.echo(process.stdout.read(), nl=False)
        process.wait()
        place.close()


def follow_and_ask(place: Place, last: int, queries: int) -> None:
    """Ask and follow until the last generation is current; print a line for each, and the figures at the end."""
    collections = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)
    collection = collections.get(place.name)
    follower = Follower(collections, 0, print)
    done = threading.Event()
    seen: list[tuple[Taken, int]] = []
    wrong: list[str] = []
    answered = threading.local()  # which generation, in each thread
    redis_pid = int(place.redis.info("server")["process_id"])

    def search() -> None:
        answer = collection.search(NEW[0], 100, 2)
        answered.generation = answer.generation
        assets = [match.asset_id for match in answer.matches]
        if assets[0] != "new-0" or len({*assets}) != 100:
            wrong.append(f"generation {answer.generation}: {assets[:3]}")

    def ask() -> None:
        with closing(RunDelays(redis_pid)) as delays:
            while not done.is_set():
                seen.append((delays.timed(search), answered.generation))

    for _ in range(200):
        collection.search(NEW[0], 100, 2)
    before_mb = resident_mb()
    follower.thread.start()
    with as_in_a_worker(), ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(ask) for _ in range(THREADS)]
        for generation in range(1, 1 + last):
            wait_for(lambda: collection.manifest.generation >= generation)  # noqa: B023  # asked at once
            if generation < last:
                click.echo(f"generation {generation}")
        wait_for(lambda: len(seen) >= queries)
        done.set()
        errors = sum(thread.exception() is not None for thread in threads)
    time.sleep(2 * READ_S)  # in which the follower lets the last generation but one go
    follower.thread.stop()
    after_mb = resident_mb()
    times = [1000 * taken.clock_s for taken, _ in seen]
    figures = {
        "swaps": collection.manifest.generation - 1,
        "generations that answered": len({generation for _, generation in seen}),
        "queries": len(seen),
        "errors": errors,
        "wrong or mixed answers": len(wrong),
        "query p50, p95 (ms)": [round(float(np.percentile(times, p)), 1) for p in (50, 95)],
        **longest("longest query", [taken for taken, _ in seen]),
        "resident before and after (MB)": [round(before_mb), round(after_mb)],
        "memory after / before": round(after_mb / before_mb, 3),
    }
    for what, figure in figures.items():
        click.echo(f"{what}: {figure}")


if __name__ == "__main__":
    main()
