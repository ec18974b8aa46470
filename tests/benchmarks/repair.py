"""Repair after Redis was emptied: ``python -m tests.benchmarks.repair [--count 20000]``.

Documents and S3 are real, and all assets have to be registered again. `read_per_s` is how many documents a second are
read, `repaired_per_s` how many assets are repaired a second in all; `bytes_an_image` is what the process takes more of
memory at its peak, for each document.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Final

import click

from tasks.bounded_map import bounded_map
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
    read_s, before, began = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()

    def progress(done: int, total: int) -> None:
        nonlocal read_s
        read_s = time.perf_counter() - began if done == total else read_s

    assert place.repair(progress).registered == count
    whole_s = time.perf_counter() - began
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    click.echo(
        f"documents={count}  read_per_s={count / read_s:.0f}  repaired_per_s={count / whole_s:.0f}  "
        f"bytes_an_image={more / count:.0f}"
    )


if __name__ == "__main__":
    main()
