"""What keeps Python's lock while a collection changes: ``python -m tests.benchmarks.pauses [--size N] [--calls]``.

A query needs the lock several times, so no other thread of its process may keep it for long. A thread does here what a
worker does beside its queries: it reads 10,000 changes, compacts them, opens the next generation, switches to it, and
lets the one before go; seven times, then it merges the eight segments. Codes and centroids are random (IVF4096,PQ8x8,
512-d); files, Redis and S3 are real.

Another thread takes the lock every 0.2 ms, or as soon as it can, and reads then how much of a core the first one has
used since: so long the lock was kept. Times are of a core and mean the same on a busy machine, since that thread comes
before all others (SCHED_FIFO, for which the user must be root); waits for a disk are not among them. With `--calls`,
long calls of C functions are listed too, with how often the lock was free meanwhile. At last come the first queries
after a switch, and how many pages they had to map.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import numpy as np

from tests.benchmarks.index import EXTRACTOR, as_in_a_worker, publish
from tests.benchmarks.scale import EACH, ROUNDS, random_codec, random_codes
from tests.collections import Place
from tests.stack import running_stack, settings_of
from workers.index.codec.codec import Codec, Codes
from workers.index.collection.collection import READ_S, Collection
from workers.index.collection.journal import addition

AT_ONCE: Final = 1_000
TURN_S: Final = 2e-4
DEPTH: Final = 3  # frames that say where the lock was kept
QUERIES: Final = 20


@click.command(help=__doc__)
@click.option("--size", "sizes", multiple=True, type=int, default=(10**6,), show_default=True)
@click.option("--least-ms", default=2.0, show_default=True, help="List what keeps the lock for longer.")
@click.option("--calls", is_flag=True, help="List long calls of C functions too; Python code is slower then.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Compactions before the merge.")
def main(sizes: tuple[int, ...], least_ms: float, calls: bool, rounds: int) -> None:
    codec = random_codec()
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        for size in sizes:
            place = Place(f"pauses-{size}", settings_of(Path(folder)), Path(folder) / "cache")
            place.store.ensure_buckets()
            publish(place, codec, random_codes(codec, size, 1))
            show(size, measured(place, codec, least_ms / 1000, rounds, calls=calls))
            place.close()


@dataclass
class Kept:
    """Seconds of a core for which the lock was kept, by what was done and where; and of long calls of C functions, with
    how often the lock was free meanwhile."""

    least_s: float
    doing: str = ""
    locks: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    longest_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[tuple[str, str], list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    collections: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    queries: dict[str, list[tuple[float, int, int]]] = field(default_factory=dict)

    @contextmanager
    def of(self, doing: str) -> Iterator[None]:
        self.doing = doing
        try:
            yield
        finally:
            self.doing = ""


def measured(place: Place, codec: Codec, least_s: float, rounds: int, *, calls: bool) -> Kept:
    """Compact, merge and follow in a watched thread, and ask between."""
    kept, collection = Kept(least_s), place.open(EXTRACTOR)
    queries = codec.decode(random_codes(codec, QUERIES, 3))
    for query in queries:
        collection.search(query, 5, 1)
    with as_in_a_worker():
        for number in range(rounds + 1):
            whole = number == rounds
            register(place, random_codes(codec, EACH, 10 + number), number)
            watched(work_of(place, collection, kept, whole=whole), kept, calls=calls)
            asked(collection, queries, kept, "after the merge" if whole else "after a compaction")
    return kept


def register(place: Place, codes: Codes, number: int) -> None:
    changes = [addition(f"new-{number}-{i:05d}", code, {}, "", None, None, "") for i, code in enumerate(codes)]
    for start in range(0, len(changes), AT_ONCE):
        place.journal.write_all(changes[start : start + AT_ONCE])


def work_of(place: Place, collection: Collection, kept: Kept, *, whole: bool) -> Callable[[], None]:
    """What a worker does beside its queries."""

    def work() -> None:
        with kept.of("reading 10,000 changes"):
            collection.catch_up()
        with kept.of("merging eight segments" if whole else "compacting 10,000 changes"):
            place.compact(whole=whole)
        with kept.of("opening and switching"):
            collection.follow()
        time.sleep(READ_S)  # queries have ended
        with kept.of("letting go"):
            collection.catch_up()

    return work


def asked(collection: Collection, queries: Any, kept: Kept, when: str) -> None:
    """Seconds of a core that queries take, one after the other, and the pages that were mapped for each."""
    for number, query in enumerate(queries):
        before, began = resource.getrusage(resource.RUSAGE_THREAD), time.thread_time()
        collection.search(query, 5, 1)
        after, took_s = resource.getrusage(resource.RUSAGE_THREAD), time.thread_time() - began
        faults = after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt
        place = "first query" if number == 0 else "others"
        kept.queries.setdefault(f"{place} {when}", []).append((took_s, *faults))


def watched(work: Callable[[], None], kept: Kept, *, calls: bool) -> None:
    """Do the work in a thread, and note what keeps the lock."""
    ready, failed = threading.Event(), list[BaseException]()

    def run() -> None:
        ready.wait()
        with ExitStack() as running:
            if calls:
                sys.setprofile(Calls(kept, watch))
                running.callback(sys.setprofile, None)
            collecting = Collecting(kept, threading.get_ident())
            gc.callbacks.append(collecting)
            running.callback(gc.callbacks.remove, collecting)
            try:
                work()
            except BaseException as error:
                failed.append(error)

    worker = threading.Thread(target=run, name="worker")
    worker.start()
    watch = Watch(worker, kept)
    watcher = threading.Thread(target=watch.run, name="watcher")
    usual = sys.getswitchinterval()
    # The watcher asks for the lock so soon; sooner, it would keep a core busy and be held back itself.
    sys.setswitchinterval(TURN_S / 2)
    try:
        watcher.start()
        ready.set()
        worker.join()
        watch.ended = True
        watcher.join()
    finally:
        sys.setswitchinterval(usual)
    if failed:
        raise failed[0]


class Watch:
    """Takes Python's lock whenever it is to be had."""

    def __init__(self, worker: threading.Thread, kept: Kept) -> None:
        assert worker.ident is not None
        self._ident, self._kept = worker.ident, kept
        self._clock = time.pthread_getcpuclockid(worker.ident)
        self.turns = 0
        self.ended = False

    def run(self) -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        used = time.clock_gettime(self._clock)
        while not self.ended:
            time.sleep(TURN_S)  # lets the lock go
            try:
                now = time.clock_gettime(self._clock)
            except OSError:  # the thread has ended
                break
            if doing := self._kept.doing:
                self._note(now - used, doing)
            used = now
            self.turns += 1

    def _note(self, kept_s: float, doing: str) -> None:
        self._kept.longest_s[doing] = max(self._kept.longest_s[doing], kept_s)
        if kept_s >= self._kept.least_s:
            self._kept.locks[doing, self._where()].append(kept_s)

    def _where(self) -> str:
        frame = sys._current_frames().get(self._ident)
        return place_of(frame) if frame else ""


def place_of(frame: FrameType | None) -> str:
    """The innermost lines that are executed, and how they were come to."""
    lines: list[str] = []
    while frame and len(lines) < DEPTH:
        path = Path(frame.f_code.co_filename)
        lines.append(f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(lines)


class Calls:
    """Notes long calls of C functions: a profile function."""

    def __init__(self, kept: Kept, watch: Watch) -> None:
        self._kept, self._watch = kept, watch
        self._began: list[tuple[float, int]] = []

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            self._began.append((time.thread_time(), self._watch.turns))
        elif event in ("c_return", "c_exception") and self._began:
            began, turns = self._began.pop()
            took_s = time.thread_time() - began
            if took_s >= self._kept.least_s:
                name = f"{getattr(function, '__qualname__', function)} at {place_of(frame)}"
                self._kept.calls[self._kept.doing, name].append((took_s, self._watch.turns - turns))


class Collecting:
    """Notes how long collections of garbage take: one of Python's ``gc.callbacks``."""

    def __init__(self, kept: Kept, ident: int) -> None:
        self._kept, self._ident = kept, ident
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if threading.get_ident() != self._ident:
            return
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._kept.collections[self._kept.doing, info["generation"]].append(time.thread_time() - self._began)


def show(size: int, kept: Kept) -> None:
    click.echo(f"\n{size:,} codes on {os.cpu_count()} cores. Python's lock was kept, longest (ms of a core):")
    for doing, longest_s in kept.longest_s.items():
        click.echo(f"{1000 * longest_s:8.2f}  {doing}")
    click.echo(f"\nFor more than {1000 * kept.least_s:g} ms (how often, longest, together):")
    for (doing, where), seconds in sorted(kept.locks.items(), key=lambda item: -max(item[1])):
        told = f"{len(seconds):5} {1000 * max(seconds):8.2f} {1000 * sum(seconds):8.1f}"
        click.echo(f"{told}  {doing}: {where}")
    if kept.calls:
        click.echo("\nCalls of C functions as long (how often, longest; least turns of another thread meanwhile):")
    for (doing, name), calls in sorted(kept.calls.items(), key=lambda item: -max(item[1])[0]):
        longest_s, least = max(took for took, _ in calls), min(turns for _, turns in calls)
        click.echo(f"{len(calls):5} {1000 * longest_s:8.2f} {least:6}  {doing}: {name}")
    click.echo("\nCollections of garbage (how often, longest):")
    for (doing, generation), seconds in kept.collections.items():
        click.echo(f"{len(seconds):5} {1000 * max(seconds):8.2f}  {doing}: generation {generation}")
    click.echo("\nQueries: ms of a core, pages that were mapped, and pages that were read from a disk, at most:")
    for when, queries in kept.queries.items():
        most = [max(values) for values in zip(*queries, strict=True)]
        median = 1000 * float(np.median([took for took, _, _ in queries]))
        click.echo(f"{1000 * most[0]:8.2f} (median {median:.2f}) {most[1]:6} {most[2]:4}  {when}")


if __name__ == "__main__":
    main()
