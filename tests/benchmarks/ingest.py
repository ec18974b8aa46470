"""From PUT to protected: ``python -m tests.benchmarks.ingest [--json FILE]``.

Photographs are put into a bucket one at a time, on an idle stack, and told of as MinIO does it. Measured is the time
from the beginning of the PUT until the protected file is there and its asset registered, to within 50 ms.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from tasks.assets.journal import AssetJournal
from tasks.connection import connect_redis
from tests.buckets import made_bucket
from tests.photographs import crops
from tests.stack import running_stack, settings_of
from tests.waiting import wait_for

_BUCKET = "inbox"


@click.command(help=__doc__)
@click.option("--count", default=100, show_default=True, help="Photographs.")
@click.option("--side", default=256, show_default=True, help="Of each, in pixels.")
@click.option("--workers", type=click.IntRange(1), help="Default: as many as `aii up` starts.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(count: int, side: int, workers: int | None, json_path: Path | None) -> None:
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(running_stack(state, workers, AII_INGEST_BUCKETS=_BUCKET))
        settings = settings_of(state)
        redis = stack.enter_context(connect_redis(settings))
        bucket, journal = made_bucket(settings, _BUCKET), AssetJournal(redis, settings.default_collection)
        times = []
        for number, photo in enumerate(crops(count + 5, side=side)):
            began, key = time.perf_counter(), f"{number}.jpg"
            etag = (bucket.put(key, photo)["e_tag"] or "").strip('"')
            s3 = {"bucket": {"name": _BUCKET}, "object": {"key": key, "eTag": etag}}
            redis.rpush(
                f"aii:ingest:{_BUCKET}", json.dumps([{"Event": [{"eventName": "s3:ObjectCreated:Put", "s3": s3}]}])
            )
            wait_for(lambda key=key: journal.live(key).state)
            times.append(1_000 * (time.perf_counter() - began))
    quantiles = statistics.quantiles(times[5:], n=20)  # kernels are made for each shape
    figures = {"put_to_protected_p50_ms": quantiles[9], "put_to_protected_p95_ms": quantiles[18]}
    for name, value in figures.items():
        click.echo(f"{name:<32}{value:.1f}")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
