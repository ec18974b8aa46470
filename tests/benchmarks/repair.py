"""Repair after Redis was emptied: ``python -m tests.benchmarks.repair [--count 20000] [--covered 0.9]``.

Documents and S3 are real. A share of them is in the segments, which a repair knows and passes over; the other assets
have to be registered again. `read_per_s` is how many documents a second are listed and, where they have to be, read,
`repaired_per_s` how many are repaired a second in all, and `cpu_ms` what each takes of a core here; `more_mb`
is how much more memory it takes at its peak. What listing takes says :mod:`tests.benchmarks.listing`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import click

from tasks.bounded_map import bounded_map
from tests.benchmarks.scale import memory_taken
from tests.collections import Place, trained_codec, unit_vectors
from tests.stack import running_stack, settings_of
from tests.waiting import wait_for
from workers.index.collection import settling
from workers.index.collection.journal import addition

_WRITERS: Final = 16
_AT_ONCE: Final = 1_000
_META: Final = {"licence": "https://example.org/licences/editorial", "photographer": "someone"}


@click.command(help=__doc__)
@click.option("--count", default=20_000, show_default=True)
@click.option("--covered", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Share in the segments.")
def main(count: int, covered: float) -> None:
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        settings = settings_of(Path(folder))
        Place("none", settings, Path(folder)).store.ensure_buckets()
        place = Place.published(settings, Path(folder) / "cache")
        passed_over = write(place, count, covered)
        measure(place, count, passed_over)
        place.close()


def write(place: Place, count: int, covered: float) -> int:
    """Write documents, and compact what a share of them says; returns how many these are."""
    codes, first = trained_codec().encode(unit_vectors(count, 1)), round(count * covered)

    def document(pair: tuple[int, str]) -> None:
        place.document(f"asset-{pair[0]:08d}", codes[pair[0]], pair[1], _META)

    def documents(pairs: list[tuple[int, str]]) -> None:
        for _ in bounded_map(document, pairs, _WRITERS):
            pass

    for start in range(0, first, _AT_ONCE):
        some = range(start, min(start + _AT_ONCE, first))
        changes = [addition(f"asset-{i:08d}", codes[i], _META, "", None, None, "") for i in some]
        documents(list(zip(some, place.journal.write_all(changes), strict=True)))
    if first:
        settle(place)
    documents([(i, f"5-{i}") for i in range(first, count)])
    place.redis.flushall()
    return first


def settle(place: Place) -> None:
    """As after a quarter of an hour in which nothing was written."""
    now_ms = place.files.now_ms()
    later_ms = wait_for(lambda: (now := place.files.now_ms()) > now_ms and now)
    place.journal.settling.follow(later_ms + settling.MARGIN_MS)
    place.compact()


def measure(place: Place, count: int, passed_over: int) -> None:
    read_s = 0.0
    began, cpu_before = time.perf_counter(), time.process_time()

    def progress(done: int, total: int) -> None:
        nonlocal read_s
        read_s = time.perf_counter() - began if done == total else read_s

    with memory_taken() as taken_mb:
        repaired = place.repair(progress)
    assert (repaired.passed_over, repaired.registered) == (passed_over, count - passed_over)
    whole_s = time.perf_counter() - began
    cpu_ms = 1000 * (time.process_time() - cpu_before) / count
    read_per_s = count / (read_s or whole_s)
    click.echo(
        f"documents={count}  passed_over={passed_over}  read_per_s={read_per_s:.0f}  "
        f"repaired_per_s={count / whole_s:.0f}  cpu_ms={cpu_ms:.3f}  more_mb={max(taken_mb):.1f}"
    )


if __name__ == "__main__":
    main()
