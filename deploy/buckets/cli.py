"""The commands ``aii buckets …``; what they do is imported when they run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tasks.command_line import EXIT_FAILED, Command, FilePath, FiniteRange, echo, one_line
from tasks.output_files import force_option

__all__ = ["buckets"]


def _wishes(command: Any) -> Any:
    """The options that say what the buckets shall have."""
    options = (
        click.option("--queries-days", type=click.IntRange(1), default=1, show_default=True,
                     help="Days after which queried images expire."),
        click.option("--versions-days", type=click.IntRange(1),
                     help="Keep replaced and deleted originals and protected files for so many days."),
        click.option("--lock-days", type=click.IntRange(1),
                     help="Let no version of these be deleted for so many days; older servers lock new buckets only."),
        click.option("--cors", "origins", multiple=True, metavar="ORIGIN",
                     help="Origin of web pages that upload by presigned links (repeatable)."),
        click.option("--notify", multiple=True, metavar="BUCKET=ARN",
                     help="Tell a target of the server of new objects, for `aii ingest` (repeatable)."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def buckets() -> None:
    """Make and check the buckets: expiry, versions, locks, notifications, policies.

    The keys in the environment have to be an administrator's. What a server does not offer is said.
    """


@buckets.command(cls=Command)
@_wishes
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be made.")
@click.option(
    "--wait-for-services", "wait_s", type=FiniteRange(0, 86_400), default=0.0, metavar="SECONDS",
    help="Wait so long for S3 to answer.",
)  # fmt: skip
def init(dry_run: bool, **options: Any) -> None:
    """Make what is missing; run it as often as you like.

    Rules of others in a bucket's lifecycle stay. Exit status 1 when something that was asked for is not there.
    """
    _compare(make=not dry_run, **options)


@buckets.command(cls=Command)
@_wishes
def check(**options: Any) -> None:
    """Compare, and change nothing. Exit status 1 when something is missing."""
    _compare(make=False, **options)


@buckets.command(cls=Command)
@click.argument("folder", type=FilePath(file_okay=False))
@force_option
def policies(folder: Path, force: bool) -> None:
    """Write the policies of producers, workers, the gateway and Flower, with the names of your buckets."""
    from deploy.buckets.policies import write_policies  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    for path in write_policies(load_settings(), folder, force=force):
        echo(one_line(str(path)))


@buckets.command(cls=Command)
@click.argument("bucket")
@click.argument("key")
@click.option("--put", is_flag=True, help="A link to upload the object, instead of one to read it.")
@click.option("--valid-s", type=click.IntRange(1, 604_800), default=900, show_default=True, help="Seconds.")
def link(bucket: str, key: str, put: bool, valid_s: int) -> None:
    """Print a presigned link to one object; who has it needs no key."""
    from datetime import timedelta  # noqa: PLC0415

    from deploy.buckets.client import administrator, named_errors  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    client = administrator(settings.model_copy(update={
        "s3_endpoint": settings.s3_public_endpoint or settings.s3_endpoint}))  # fmt: skip
    sign = client.presigned_put_object if put else client.presigned_get_object
    with named_errors(settings.s3_endpoint):
        echo(sign(bucket, key, expires=timedelta(seconds=valid_s)))


def _compare(*, make: bool, notify: tuple[str, ...], wait_s: float = 0.0, **options: Any) -> None:
    from deploy.buckets.client import administrator, answers  # noqa: PLC0415
    from deploy.buckets.plan import Wishes, carried_out, steps_for  # noqa: PLC0415
    from producer.output import note  # noqa: PLC0415
    from producer.retry_policy import RetryPolicy  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    targets = dict(pair.split("=", 1) for pair in notify if "=" in pair)
    if len(targets) < len(notify):
        raise click.BadParameter("write it as BUCKET=ARN", param_hint="--notify")
    settings = load_settings()
    steps = steps_for(settings, Wishes(notify=targets, **options))
    client, good = administrator(settings), True
    RetryPolicy(wait_s, note).call(lambda: answers(client, settings))
    for finding in carried_out(client, settings.s3_endpoint, steps, make=make):
        echo(f"{finding.step.bucket:<14} {finding.step.what:<44} {finding.state.value}")
        good &= finding.good
    if not good:
        sys.exit(EXIT_FAILED)
