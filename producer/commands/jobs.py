"""``aii jobs``: list jobs, wait for them, fetch their files, retry and cancel them; dead letters.

How that is done is in :mod:`producer.jobs` and :mod:`producer.job_results`, which are imported when a command runs:
Celery and the S3 client take long to import.
"""

from __future__ import annotations

from pathlib import Path

import click

from tasks.command_line import FilePath, FiniteRange, Group
from tasks.ledger.states import JobState
from tasks.output_files import force_option

__all__ = ["jobs"]

_some = click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per job, one a line.")


@click.group(cls=Group)
def jobs() -> None:
    """List jobs, wait for them, fetch their files, retry and cancel them.

    JOB is a job's id, or as many of its first characters as no other job has; - reads ids from standard input.
    """


@jobs.command("list")
@click.argument("state", required=False, type=click.Choice([state.value for state in JobState]))
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="Of each state.")
@_json
def list_(state: str | None, limit: int, as_json: bool) -> None:
    """List jobs in one state; without STATE, all that are running, waiting or failed."""
    from producer import jobs  # noqa: PLC0415

    jobs.list_jobs(JobState(state) if state else None, limit, as_json=as_json)


@jobs.command()
@click.argument("job_id", metavar="JOB")
def show(job_id: str) -> None:
    """Show a job, with its result document as JSON when it has one."""
    from producer import jobs  # noqa: PLC0415

    jobs.show_job(job_id)


@jobs.command()
@_some
@click.option("--timeout", "timeout_s", type=FiniteRange(min=0), help="Seconds to wait for all; default: no limit.")
@_json
def wait(job_ids: tuple[str, ...], timeout_s: float | None, as_json: bool) -> None:
    """Wait for jobs, and print the result of each as it ends."""
    from producer import job_results  # noqa: PLC0415

    job_results.wait_for_jobs(job_ids, timeout_s, as_json=as_json)


@jobs.command()
@_some
@click.option("--out", default=".", show_default=True, type=FilePath(file_okay=False), help="Folder for the files.")
@force_option
def download(job_ids: tuple[str, ...], out: Path, force: bool) -> None:
    """Save the protected files of activations that are done, under their originals' names, with a manifest."""
    from producer import job_results  # noqa: PLC0415

    job_results.download_jobs(job_ids, out, force=force)


@jobs.command()
@_some
def retry(job_ids: tuple[str, ...]) -> None:
    """Retry failed or cancelled jobs."""
    from producer import jobs  # noqa: PLC0415

    jobs.retry_jobs(job_ids)


@jobs.command()
@click.argument("job_ids", nargs=-1, metavar="JOB...")
@click.option("--all", "everything", is_flag=True, help="Every job that waits or runs, of every producer.")
@click.option("--yes", is_flag=True, help="With --all: do not ask for confirmation.")
def cancel(job_ids: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Cancel jobs that wait or run. A cancelled job publishes nothing; one that is being published is refused."""
    from producer import jobs  # noqa: PLC0415

    if bool(job_ids) is everything:
        raise click.UsageError("Name jobs, or say --all.")
    if everything:
        jobs.cancel_all(confirmed=yes)
    else:
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
