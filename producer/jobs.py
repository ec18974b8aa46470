"""What ``aii jobs`` does: lists, and changes that operators make. Waiting is in :mod:`producer.job_results`."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Final

from producer import output
from tasks.app import Sender, create_app
from tasks.command_line import EXIT_FAILED, echo
from tasks.connection import connect_redis
from tasks.documents import read_document
from tasks.errors import AiiError, JobMissing, ObjectMissing, Unavailable
from tasks.ledger.dead_letters import DeadLetter, DeadLetters
from tasks.ledger.operations import Operations
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.names import QUEUES
from tasks.settings import load_settings
from tasks.storage import ObjectStore
from tasks.streams import confirm, read_stdin

__all__ = ["cancel_all", "cancel_jobs", "dead_letters", "list_jobs", "named_jobs", "retry_jobs", "show_job"]

_SHOWN_BYTES: Final = 120
_UNSETTLED: Final = (JobState.RUNNING, JobState.QUEUED, JobState.FAILED)
_AT_ONCE: Final = 1_000


def list_jobs(state: JobState | None, limit: int, *, as_json: bool) -> None:
    """Print jobs in one state, or those that may need attention: at most `limit` of each state."""
    operations = Operations.connect(load_settings())
    for wanted in (state,) if state else _UNSETTLED:
        for record in operations.jobs(wanted, limit):
            echo(json.dumps(asdict(record)) if as_json else _line(record))


def show_job(part: str) -> None:
    """Print a job, with its result document as JSON when it has one; that alone of a job that the ledger has
    forgotten."""
    settings = load_settings()
    operations = Operations.connect(settings)
    job_id = operations.find(part)
    store, record = ObjectStore.connect(settings), None
    with contextlib.suppress(JobMissing):
        record = operations.job(job_id)
        echo(_line(record))
    try:  # the ledger's number of it spares a listing, for which a producer lacks the right
        document = read_document(store, job_id, max(1, record.commits) if record else None)
    except ObjectMissing:
        if record is None:
            raise JobMissing(f"There is no job {job_id}: search for it with `aii jobs list`.") from None
        return
    echo(json.dumps(json.loads(document), indent=2))


def named_jobs(operations: Operations, parts: Sequence[str]) -> Iterator[str]:
    """The ids of the jobs that arguments name: by their first digits, or ``-`` for a list on standard input."""
    for part in parts:
        for one in read_stdin().decode(errors="replace").split() if part == "-" else [part]:
            yield operations.find(one)


def retry_jobs(parts: Sequence[str]) -> None:
    """Open failed or cancelled jobs again. Exits when one cannot be."""
    settings = load_settings()
    operations, sender = Operations.connect(settings), Sender(create_app(settings), settings)

    def retry(job_id: str) -> None:
        sender.send_again(operations.retry(job_id))
        output.note(f"{job_id} is queued again.")

    _each(list(named_jobs(operations, parts)), retry)


def cancel_jobs(parts: Sequence[str]) -> None:
    """Cancel open jobs. Exits when one cannot be."""
    settings = load_settings()
    operations, store = Operations.connect(settings), ObjectStore.connect(settings)

    def cancel(job_id: str) -> None:
        before = operations.cancel(job_id, store)
        output.note(f"{job_id} was {before.value}, and is cancelled.")

    _each(list(named_jobs(operations, parts)), cancel)


def cancel_all(*, confirmed: bool) -> None:
    """Cancel every job that waits or runs, also those that others submitted; asks before, unless `confirmed`. Exits
    when one cannot be."""
    settings = load_settings()
    operations, store = Operations.connect(settings), ObjectStore.connect(settings)
    count = operations.running() + sum(operations.waiting(queue)[0] for queue in QUEUES)
    if count and not confirmed:
        confirm(f"Cancel all {count:,} jobs that wait or run, of every producer?")
    tried: set[str] = set()
    cancelled = 0
    while new := [job for job in _open_jobs(operations) if job not in tried]:
        for job_id in new:
            cancelled += _is_cancelled(operations, store, job_id)
        tried.update(new)
    output.note(f"{cancelled} jobs cancelled.")
    if left := len(_open_jobs(operations)):
        output.note(f"{left} could not be: they are being published, and end in a moment.")
        sys.exit(EXIT_FAILED)


def _open_jobs(operations: Operations) -> list[str]:
    return [job.job_id for state in (JobState.QUEUED, JobState.RUNNING) for job in operations.jobs(state, _AT_ONCE)]


def _is_cancelled(operations: Operations, store: ObjectStore, job_id: str) -> bool:
    try:
        operations.cancel(job_id, store)
    except Unavailable:
        raise
    except AiiError:  # it has ended meanwhile, or is being published
        return False
    return True


def _each(job_ids: Sequence[str], change: Callable[[str], None]) -> None:
    """Change every job; one that cannot be is named, and the others are changed all the same."""
    failed = False
    for job_id in job_ids:
        try:
            change(job_id)
        except Unavailable:
            raise
        except AiiError as error:
            output.note(f"{error.message} [{error.code}]")
            failed = True
    if failed:
        sys.exit(EXIT_FAILED)


def dead_letters(limit: int, resend: Sequence[str], drop: Sequence[str]) -> None:
    """Send some again, forget some, or, with neither, print the newest."""
    letters = DeadLetters(connect_redis(load_settings()))
    letters.check([*resend, *drop])
    for entry in resend:
        output.note(f"{entry} is in the queue {letters.resend(entry)} again.")
    if drop:
        output.note(f"{letters.drop(drop)} dead letters are forgotten.")
    if not resend and not drop:
        for letter in letters.newest(limit):
            echo(_dead_line(letter))


def _dead_line(letter: DeadLetter) -> str:
    at = datetime.datetime.fromtimestamp(letter.at, datetime.UTC).isoformat(timespec="seconds")
    shown = letter.content[:_SHOWN_BYTES].decode(errors="replace")
    return f"{letter.entry}  {at}  {letter.origin}  {letter.reason}  {letter.size} bytes: {shown!a}"


def _line(record: JobRecord) -> str:
    error = f"  [{record.error_code}] {record.error_message or ''}" if record.error_code else ""
    about = "".join(f"  {text}" for text in (record.asset_id, record.name) if text)
    later = f"  superseded by {record.superseded_by}" if record.superseded_by else ""
    removed = "  removed" if record.removed_at else ""
    return (
        f"{record.job_id}  {record.state.value:<9}  {record.task}{about}  {record.attempts} attempts"
        f"{later}{removed}{error}"
    )
