"""``aii jobs``: list jobs, show, retry and cancel them, and dead letters. It is done in :mod:`producer.jobs`."""

from __future__ import annotations

import click

from tasks.command_line import Group
from tasks.ledger.states import JobState

__all__ = ["jobs"]

_some = click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")


@click.group(cls=Group)
def jobs() -> None:
    """List jobs, show, retry and cancel them."""


@jobs.command("list")
@click.argument("state", required=False, type=click.Choice([state.value for state in JobState]))
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="Of each state.")
def list_(state: str | None, limit: int) -> None:
    """List jobs in one state; without STATE, all that are running, waiting or failed."""
    from producer import jobs  # noqa: PLC0415  # Celery and the S3 client take long to import

    jobs.list_jobs(JobState(state) if state else None, limit)


@jobs.command()
@click.argument("job_id", metavar="JOB")
def show(job_id: str) -> None:
    """Show a job, with its result document as JSON when it has one."""
    from producer import jobs  # noqa: PLC0415

    jobs.show_job(job_id)


@jobs.command()
@_some
def retry(job_ids: tuple[str, ...]) -> None:
    """Retry failed or cancelled jobs."""
    from producer import jobs  # noqa: PLC0415

    jobs.retry_jobs(job_ids)


@jobs.command()
@_some
def cancel(job_ids: tuple[str, ...]) -> None:
    """Cancel jobs that wait or run. A cancelled job publishes nothing; one that is being published is refused."""
    from producer import jobs  # noqa: PLC0415

    jobs.cancel_jobs(job_ids)


@jobs.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000))
@click.option(
    "--resend", multiple=True, metavar="ENTRY", help="Put a message back into its queue as it was. Repeatable."
)
@click.option("--drop", multiple=True, metavar="ENTRY", help="Forget one. Repeatable.")
def dead(limit: int, resend: tuple[str, ...], drop: tuple[str, ...]) -> None:
    """List dead letters: messages and records that no worker could use, newest first.

    Each line has an entry (its name), when and where it was found, why it could not be used, and how it begins.
    """
    from producer import jobs  # noqa: PLC0415

    jobs.dead_letters(limit, resend, drop)
