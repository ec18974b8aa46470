"""Any number of images with bounded memory: read ahead by a window, submitted by a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from producer.batch import ended_jobs
from producer.job import ActivationJob, QueryJob
from producer.requests import Activation, Image, Query
from producer.retry_policy import NO_RETRIES
from tasks.errors import AiiError, InvalidRequest, error_of
from tasks.results import ActivationResult, FailureResult, ImageResult, QueryResult

if TYPE_CHECKING:
    from producer.client import Producer

__all__ = ["DEFAULT_WINDOW", "Finished", "Submitted", "run_many", "submit_many"]

DEFAULT_WINDOW: Final = 64
_THREADS: Final = 8

Wanted: TypeAlias = Activation | Query | Image


@dataclass(frozen=True)
class Submitted:
    """One of many: its job, or the error that refused it."""

    wanted: Activation | Query
    job: ActivationJob | QueryJob | None = None
    error: AiiError | None = None


@dataclass(frozen=True)
class Finished:
    """One of many at its end: its result, or the error that it was refused with or failed with."""

    wanted: Activation | Query
    job: ActivationJob | QueryJob | None = None
    result: ActivationResult | QueryResult | None = None
    error: AiiError | None = None


def submit_many(producer: Producer, wanted: Iterable[Wanted], window: int) -> Iterator[Submitted]:
    """See :meth:`Producer.submit_many`."""
    items = iter(wanted)
    if window < 1:
        raise InvalidRequest(f"A window of {window} holds nothing: at least 1 is needed.")
    with ThreadPoolExecutor(min(_THREADS, window)) as pool:
        pending: deque[Future[Submitted]] = deque()
        try:
            while True:
                pending.extend(pool.submit(_submitted, producer, item) for item in islice(items, window - len(pending)))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)  # those that have begun are accepted


def run_many(producer: Producer, wanted: Iterable[Wanted], window: int) -> Iterator[Finished]:
    """See :meth:`Producer.run_many`."""
    half = max(1, window // 2)  # submitted ahead; as many are waited for
    open_jobs: dict[str, list[Submitted]] = {}  # two images of the same content are one job
    count = 0
    for submitted in submit_many(producer, wanted, half):
        if submitted.job is None:
            yield Finished(submitted.wanted, error=submitted.error)
            continue
        open_jobs.setdefault(submitted.job.job_id, []).append(submitted)
        count += 1
        if count >= half:
            # Down to a half of them: each time they are waited for anew, the ledger is asked for all.
            yield from _ended(producer, open_jobs, half // 2)
            count = sum(map(len, open_jobs.values()))
    yield from _ended(producer, open_jobs, 0)


def _submitted(producer: Producer, item: Wanted) -> Submitted:
    wanted = item if isinstance(item, Activation | Query) else Activation(item)
    try:
        return Submitted(wanted, producer.submit(wanted))
    except AiiError as error:
        return Submitted(wanted, error=error)


def _ended(producer: Producer, open_jobs: dict[str, list[Submitted]], down_to: int) -> Iterator[Finished]:
    """Jobs as they end, until so many are left open."""
    for job_id, outcome in ended_jobs(producer, None, NO_RETRIES, dict.fromkeys(open_jobs)):
        for submitted in open_jobs.pop(job_id):
            yield _finished(submitted, outcome)
        if len(open_jobs) <= down_to:
            return


def _finished(submitted: Submitted, outcome: ImageResult | AiiError) -> Finished:
    if isinstance(outcome, FailureResult):
        outcome = error_of(outcome.code, outcome.message)
    if isinstance(outcome, AiiError):
        return Finished(submitted.wanted, submitted.job, error=outcome)
    return Finished(submitted.wanted, submitted.job, cast(ActivationResult | QueryResult, outcome))
