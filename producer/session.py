"""One run of ``aii activate`` or ``aii query``: what it was asked for, whom it talks to, and how it ends early."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from producer import output
from producer.batch import Progress
from producer.client import Producer
from producer.retry_policy import RetryPolicy
from producer.search import Search
from producer.status import warm_workers
from tasks.command_line import EXIT_INTERRUPTED
from tasks.errors import AiiError, Conflict, DeadlineExceeded, JobMissing, Unavailable
from tasks.ledger.operations import Operations
from tasks.names import QUEUE_QUERY
from tasks.settings import Settings, load_settings
from tasks.storage import ObjectStore

__all__ = ["Batch", "Reports", "Wanted", "end_early", "missing_worker", "prepare", "withdraw", "withdrawn"]

_WAIT_FOR_SERVICES_S: Final = 60.0  # once they have answered
_LISTED_JOBS: Final = 5


@dataclass(frozen=True)
class Wanted:
    """How long to wait, for results and for services, and what becomes of results.

    Attributes:
        no_wait: submit only.
        services_s: seconds to wait for a service that is away; None: not at the start, and later on a minute, or
            `timeout_s` if that is less.
        folder: receives the protected images and their manifest.
        force: whether files may be replaced.
        card: measure what was activated, and write a page on each beside its protected file.
    """

    timeout_s: float | None = None
    as_json: bool = False
    no_wait: bool = False
    services_s: float | None = None
    folder: Path | None = None
    force: bool = False
    card: bool = False


@dataclass(frozen=True)
class Reports:
    """Where the answers of queries are written: a table, a page of all, and a folder with a page for each."""

    csv: Path | None = None
    html: Path | None = None
    evidence: Path | None = None


@dataclass(frozen=True)
class Batch:
    """The images of one command, the producer that submits them, and what is known while they are done."""

    producer: Producer
    settings: Settings
    search: Search
    retry_policy: RetryPolicy
    queue: str
    progress: Progress = field(default_factory=Progress)


def prepare(search: Search, wanted: Wanted, queue: str) -> Batch:
    """Connect.

    Raises:
        Unavailable: Redis or S3 does not answer within ten seconds, and the time that is granted besides.
    """
    settings = load_settings()
    producer = Producer.connect(settings)
    RetryPolicy(wanted.services_s or 0, output.note).call(producer.check)
    later_s = min(_WAIT_FOR_SERVICES_S, wanted.timeout_s or _WAIT_FOR_SERVICES_S)
    if wanted.services_s is not None:
        later_s = wanted.services_s
    return Batch(producer, settings, search, RetryPolicy(later_s, output.note), queue)


def end_early(batch: Batch, stopped: KeyboardInterrupt | Unavailable, *, keep: bool = False) -> NoReturn:
    """Say what goes on, and how to wait for it or cancel it. A query without a waiting caller is withdrawn, unless
    those accepted are to be kept: as they were only submitted."""
    jobs = list(batch.progress.open)
    if jobs and batch.queue == QUEUE_QUERY and not keep:
        problem = withdraw(batch, jobs)
        output.note(f"{_counted(jobs)} {f'not withdrawn: {problem}' if problem else 'withdrawn.'}")
    elif jobs:
        named = " ".join(jobs) if len(jobs) <= _LISTED_JOBS else f"- < {_listed(jobs)}"
        output.note(f"{_counted(jobs)} accepted and not done; the work goes on.")
        output.note(f"Wait for it: aii jobs wait {named}")
        output.note(f"Cancel it:   aii jobs cancel {named}")
    if left := len(batch.search.found) - len(batch.progress.tried):
        output.note(f"{left} of {len(batch.search.found)} images were not submitted: run the same command again.")
    if isinstance(stopped, Unavailable):
        raise stopped
    sys.exit(EXIT_INTERRUPTED)


def _counted(jobs: Sequence[str]) -> str:
    return "1 job was" if len(jobs) == 1 else f"{len(jobs)} jobs were"


def _listed(jobs: Sequence[str]) -> str:
    """A file with the ids, one a line."""
    with tempfile.NamedTemporaryFile("w", prefix="aii-jobs-", suffix=".txt", delete=False) as file:
        file.write("".join(f"{job_id}\n" for job_id in jobs))
    return file.name


def withdraw(batch: Batch, job_ids: Sequence[str]) -> str:
    """Cancel jobs. Those that end just now are left alone; returns why others go on, "" when none does."""
    operations, store = Operations.connect(batch.settings), ObjectStore.connect(batch.settings)
    try:
        for job_id in job_ids:
            with suppress(Conflict, JobMissing):
                operations.cancel(job_id, store)
    except AiiError as error:
        return error.message
    return ""


def withdrawn(batch: Batch, job_ids: Sequence[str], timeout_s: float | None) -> DeadlineExceeded:
    """Withdraw the jobs of a question that was not answered in time; returns the error that says so."""
    problem = withdraw(batch, job_ids)
    end = f"it could not be withdrawn: {problem}" if problem else "the question was withdrawn: ask again."
    return DeadlineExceeded(f"Not answered after {timeout_s} s; {end}")


def missing_worker(batch: Batch) -> str:
    """That no worker serves the queue in which jobs of this command wait, and what to do; "" otherwise."""
    if not batch.progress.open:
        return ""
    workers = warm_workers(batch.settings)
    if any(batch.queue in worker.queues for worker in workers):
        return ""
    if workers:
        return f"No worker serves the queue `{batch.queue}`, in which the jobs wait: start one with `aii worker`."
    return "No worker is running, so the jobs wait in the queue: start one with `aii up` or `aii worker`."
