"""A store of version 0.1.0 with many assets: how long does the first activation wait while records are made?

``python -m tests.benchmarks.migration [--documents N]``: writes result documents as version 0.1.0 did, one in twenty of
an asset that another one superseded, and makes records and digests of them, on a real Redis and a real S3 server.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import click

from tasks.assets.records import AssetRecords
from tasks.storage import Bucket
from tests.collections import EXTRACTOR, Place
from tests.integration.test_old_store import old_document, request
from tests.stack import running_stack, settings_of
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.records import record_old_assets

_WRITERS: Final = 16
_REPEATED: Final = 20  # of so many documents, one is of an asset that has a later one


@click.command(help=__doc__)
@click.option("--documents", default=20_000, show_default=True)
def main(documents: int) -> None:
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        settings = settings_of(Path(folder))
        place = Place.published(settings, Path(folder) / "cache")
        place.store.delete(Bucket.COLLECTIONS, f"{place.name}/assets-recorded.json")

        def write(number: int) -> None:
            job = request(place, f"a{number:063x}", f"asset-{number - (number % _REPEATED == 0)}")
            document = old_document(job, place, f"1700000000000-{number}", number % 20)
            document = document.replace(b"d" * 64, f"{number:064x}".encode())  # each file has a digest of its own
            place.store.put(Bucket.RESULTS, f"{job.job_id}.json", document, "application/json")

        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(write, range(1, 1 + documents)))
        collections = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)
        collections.get(place.name)
        began = time.monotonic()
        record_old_assets(collections, place.name)
        seconds = time.monotonic() - began
        made = sum(len(records) for records in AssetRecords(place.store, place.name).all())
        click.echo(f"{documents:,} documents: {made:,} records in {seconds:.1f} s")


if __name__ == "__main__":
    main()
