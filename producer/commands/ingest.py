"""``aii ingest``: a bucket's objects become jobs. How is in :mod:`producer.ingest`, imported when the command runs."""

from __future__ import annotations

import click

from tasks.command_line import Command, FiniteRange

__all__ = ["ingest"]


@click.command(cls=Command)
@click.option("--bucket", required=True, help="Whose objects are submitted; AII_SOURCE_BUCKETS has to name it.")
@click.option("--query", is_flag=True, help="Query the objects, instead of activating them.")
@click.option("--collection", help="Default: AII_DEFAULT_COLLECTION.")
@click.option("--prefix", default="", help="Only objects whose key begins with this.")
@click.option(
    "--sweep-every", "sweep_s", default=60.0, show_default=True, type=FiniteRange(min=0),
    help="Seconds between two sweeps for objects that no notification told of; 0: at the start only.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="End when everything is submitted.")
def ingest(  # one for each option
    bucket: str, query: bool, collection: str | None, prefix: str, sweep_s: float, once: bool
) -> None:
    """Submit the objects of a bucket as they appear, until SIGTERM or Ctrl-C.

    They are named, not downloaded. An asset has its object's key as asset id, and a new content of the key takes the
    place of the old one. S3 tells of new objects in the Redis list aii:ingest:BUCKET, or through the gateway; a sweep
    finds what it did not tell.
    """
    from producer.ingest.bridge import Wanted, run  # noqa: PLC0415
    from tasks.names import check_collection  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    name = check_collection(collection or settings.default_collection)
    run(settings, Wanted(bucket, name, query, prefix, sweep_s, once))
