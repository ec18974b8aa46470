"""``aii jobs``: look at jobs, try them again, end them."""

from __future__ import annotations

import json

import click

from producer import output
from tasks.app import Sender, create_app
from tasks.documents import read_document
from tasks.errors import ObjectMissing
from tasks.ledger.ledger import JobRecord, JobState
from tasks.ledger.operations import Operations
from tasks.settings import load_settings
from tasks.storage import ObjectStore

__all__ = ["jobs"]

_job = click.argument("job_id", metavar="JOB")


@click.group()
def jobs() -> None:
    """Look at jobs, try them again, end them."""


# What somebody may want to look after, when nothing else is asked for.
_UNSETTLED = (JobState.RUNNING, JobState.QUEUED, JobState.FAILED)


@jobs.command("list")
@click.argument("state", required=False, type=click.Choice([state.value for state in JobState]))
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="Of each state.")
def list_(state: str | None, limit: int) -> None:
    """List jobs in one state; without STATE, all that run, wait or failed."""
    operations = Operations.connect(load_settings())
    for wanted in (JobState(state),) if state else _UNSETTLED:
        for record in operations.jobs(wanted, limit):
            click.echo(_line(record))


@jobs.command()
@_job
def show(job_id: str) -> None:
    """Show a job, with its result document as JSON when it has one."""
    settings = load_settings()
    click.echo(_line(Operations.connect(settings).job(job_id)))
    try:
        document = read_document(ObjectStore.connect(settings), job_id)
    except ObjectMissing:
        return
    click.echo(json.dumps(json.loads(document), indent=2))


@jobs.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")
def retry(job_ids: tuple[str, ...]) -> None:
    """Try failed or cancelled jobs again."""
    settings = load_settings()
    operations, sender = Operations.connect(settings), Sender(create_app(settings), settings)
    for job_id in job_ids:
        sender.send_again(operations.retry(job_id))
        output.note(f"{job_id} is queued again.")


@jobs.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")
def cancel(job_ids: tuple[str, ...]) -> None:
    """End jobs that wait or run. A cancelled job publishes nothing; one that is just being published is refused."""
    settings = load_settings()
    operations, store = Operations.connect(settings), ObjectStore.connect(settings)
    for job_id in job_ids:
        before = operations.cancel(job_id, store)
        output.note(f"{job_id} was {before.value}, and is cancelled.")


def _line(record: JobRecord) -> str:
    error = f"  [{record.error_code}] {record.error_message or ''}" if record.error_code else ""
    about = f"  {record.asset_id}" if record.asset_id else ""
    return f"{record.job_id}  {record.state.value:<9}  {record.task}{about}  {record.attempts} attempts{error}"
