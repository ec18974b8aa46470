"""What ``aii jobs`` does."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Final

import click

from producer import output
from tasks.app import Sender, create_app
from tasks.connection import connect_redis
from tasks.documents import read_document
from tasks.errors import ObjectMissing
from tasks.ledger.dead_letters import DeadLetter, DeadLetters
from tasks.ledger.operations import Operations
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.settings import load_settings
from tasks.storage import ObjectStore

__all__ = ["cancel_jobs", "dead_letters", "list_jobs", "retry_jobs", "show_job"]

_SHOWN_BYTES: Final = 120
_UNSETTLED: Final = (JobState.RUNNING, JobState.QUEUED, JobState.FAILED)


def list_jobs(state: JobState | None, limit: int) -> None:
    """Print jobs in one state, or those that may need attention: at most `limit` of each state."""
    operations = Operations.connect(load_settings())
    for wanted in (state,) if state else _UNSETTLED:
        for record in operations.jobs(wanted, limit):
            click.echo(_line(record))


def show_job(job_id: str) -> None:
    settings = load_settings()
    click.echo(_line(Operations.connect(settings).job(job_id)))
    try:
        document = read_document(ObjectStore.connect(settings), job_id)
    except ObjectMissing:
        return
    click.echo(json.dumps(json.loads(document), indent=2))


def retry_jobs(job_ids: Sequence[str]) -> None:
    settings = load_settings()
    operations, sender = Operations.connect(settings), Sender(create_app(settings), settings)
    for job_id in job_ids:
        sender.send_again(operations.retry(job_id))
        output.note(f"{job_id} is queued again.")


def cancel_jobs(job_ids: Sequence[str]) -> None:
    settings = load_settings()
    operations, store = Operations.connect(settings), ObjectStore.connect(settings)
    for job_id in job_ids:
        before = operations.cancel(job_id, store)
        output.note(f"{job_id} was {before.value}, and is cancelled.")


def dead_letters(limit: int, resend: Sequence[str], drop: Sequence[str]) -> None:
    """Send some again, forget some, or, with neither, print the newest."""
    letters = DeadLetters(connect_redis(load_settings()))
    for entry in resend:
        output.note(f"{entry} is in the queue {letters.resend(entry)} again.")
    if drop:
        output.note(f"{letters.drop(drop)} dead letters are forgotten.")
    if not resend and not drop:
        for letter in letters.newest(limit):
            click.echo(_dead_line(letter))


def _dead_line(letter: DeadLetter) -> str:
    at = datetime.datetime.fromtimestamp(letter.at, datetime.UTC).isoformat(timespec="seconds")
    shown = letter.content[:_SHOWN_BYTES].decode(errors="replace")
    return f"{letter.entry}  {at}  {letter.origin}  {letter.reason}  {letter.size} bytes: {shown!a}"


def _line(record: JobRecord) -> str:
    error = f"  [{record.error_code}] {record.error_message or ''}" if record.error_code else ""
    about = f"  {record.asset_id}" if record.asset_id else ""
    return f"{record.job_id}  {record.state.value:<9}  {record.task}{about}  {record.attempts} attempts{error}"
