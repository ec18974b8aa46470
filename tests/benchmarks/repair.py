"""Repair after Redis was emptied: ``python -m tests.benchmarks.repair [--count 20000]``.

Documents and S3 are real, and all assets have to be registered again. `read_per_s` is how many documents a second are
read, `repaired_per_s` how many assets are repaired a second in all, and `cpu_ms` what each takes of a core in this
process; `more_mb` is how much more memory it takes at its peak.
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

_WRITERS: Final = 16


@click.command(help=__doc__)
@click.option("--count", default=20_000, show_default=True)
def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        settings = settings_of(Path(folder))
        Place("none", settings, Path(folder)).store.ensure_buckets()
        place = Place.published(settings, Path(folder) / "cache")
        codes = trained_codec().encode(unit_vectors(count, 1))
        meta = {"licence": "https://example.org/licences/editorial", "photographer": "someone"}

        def write(i: int) -> None:
            place.document(f"asset-{i:08d}", codes[i], f"5-{i}", meta)

        for _ in bounded_map(write, range(count), _WRITERS):
            pass
        measure(place, count)
        place.close()


def measure(place: Place, count: int) -> None:
    read_s = 0.0
    began, cpu_before = time.perf_counter(), time.process_time()

    def progress(done: int, total: int) -> None:
        nonlocal read_s
        read_s = time.perf_counter() - began if done == total else read_s

    with memory_taken() as taken_mb:
        assert place.repair(progress).registered == count
    whole_s = time.perf_counter() - began
    cpu_ms = 1000 * (time.process_time() - cpu_before) / count
    click.echo(
        f"documents={count}  read_per_s={count / read_s:.0f}  repaired_per_s={count / whole_s:.0f}  "
        f"cpu_ms={cpu_ms:.2f}  more_mb={max(taken_mb):.1f}"
    )


if __name__ == "__main__":
    main()
