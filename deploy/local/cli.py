"""The command ``aii up``; what it runs is imported when it runs, so that ``aii --help`` answers at once."""

from __future__ import annotations

import sys

import click

from tasks.command_line import EXIT_INTERRUPTED, EXIT_UNAVAILABLE, Command


@click.command(cls=Command)
@click.option("--workers", type=click.IntRange(0), help="How many; default: one for each core.")
@click.option("--no-flower", is_flag=True, help="Start no dashboard.")
@click.option(
    "--check", is_flag=True, help="Start nothing; report whether the stack is up. Exit status 3 when it is not."
)
def up(workers: int | None, no_flower: bool, check: bool) -> None:
    """Start Redis, an S3 store, workers and Flower on this machine and keep them running until Ctrl-C.

    The HTTP gateway is started too when there is a token for it (`aii tokens add`), the delivery of webhooks when there
    is a hook (`aii hooks add`), and `aii ingest` for each bucket of AII_INGEST_BUCKETS. A Redis or an S3 that the
    environment names (AII_REDIS_URL, AII_S3_ENDPOINT) is used instead of starting one. Data, logs and the file with
    addresses and secrets are in AII_STATE_DIR. Exit status: 0 stopped, or running already;
    2 a setting cannot be used; 3 a service does not answer; 130 stopped before everything answered.
    """
    from deploy.local import run as local  # noqa: PLC0415  # connects to Redis and S3, whose clients take long to import
    from deploy.local.supervisor import Interrupted  # noqa: PLC0415  # as above

    try:
        if check:
            sys.exit(0 if local.report_status(click.echo) else EXIT_UNAVAILABLE)
        local.run(click.echo, workers=workers, flower=not no_flower)
    except Interrupted:
        sys.exit(EXIT_INTERRUPTED)
