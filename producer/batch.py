"""Many images at once: upload in parallel, wait for all; each succeeds or fails by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from producer.retry_policy import NO_RETRIES, RetryPolicy
from producer.search import Found
from tasks.bounded_map import bounded_map
from tasks.errors import AiiError, DeadlineExceeded, Unavailable, error_of
from tasks.results import CardResult, FailureResult, GoodResult, ImageResult

if TYPE_CHECKING:
    from producer.client import Producer
    from producer.job import Job

__all__ = ["Progress", "Submission", "ended_jobs", "run_batch", "submit_all", "submitted", "wait_for_all"]

_UPLOADS = 8


@dataclass(frozen=True)
class Submission:
    """What became of one image: a result or an error; neither, while its job is open. `saved` is its protected file,
    `card` its report card."""

    order: int
    found: Found
    job_id: str | None
    new: bool
    result: GoodResult | None = None
    error: AiiError | None = None
    saved: Path | None = None
    asset_id: str = ""
    card: CardResult | None = None


@dataclass
class Progress:
    """The jobs that were accepted and are still open, by their ids, and the names of all images that were accepted or
    refused; it is right whenever the batch is interrupted."""

    open: dict[str, None] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    images: dict[str, list[Submission]] = field(default_factory=dict)


def run_batch(
    producer: Producer,
    found: Sequence[Found],
    submit: Callable[[Found], Job],
    timeout_s: float | None,
    *,
    retry_policy: RetryPolicy | None = None,
    progress: Progress | None = None,
) -> Iterator[Submission]:
    """Yield every image once, as it ends; those that are not done after `timeout_s` come last, with DeadlineExceeded.

    Raises:
        Unavailable: a service went away, and did not come back as soon as the `retry_policy` allows.
    """
    retry_policy, progress = retry_policy or NO_RETRIES, progress or Progress()
    yield from submit_all(found, submit, retry_policy, progress)
    yield from wait_for_all(producer, timeout_s, retry_policy, progress)
    for submissions in progress.images.values():
        for s in submissions:
            late = DeadlineExceeded(f"Not done after {timeout_s} s; the job goes on: run the same command again later.")
            yield replace(s, error=late)


def submit_all(
    found: Iterable[Found], submit: Callable[[Found], Job], retry_policy: RetryPolicy, progress: Progress
) -> Iterator[Submission]:
    """Submit every image, and yield those that were refused; the others are in `progress`."""
    for submission in submitted(found, submit, retry_policy, progress):
        if submission.error:
            yield submission
        else:
            # Two files of the same content are one job with two names.
            progress.images.setdefault(submission.job_id or "", []).append(submission)


def submitted(
    found: Iterable[Found], submit: Callable[[Found], Job], retry_policy: RetryPolicy, progress: Progress
) -> Iterator[Submission]:
    """Submit every image, a few ahead of what is yielded: each in its order, accepted or refused."""
    outcomes = bounded_map(lambda image: (image, _try(submit, image, retry_policy, progress)), found, _UPLOADS)
    for order, (image, outcome) in enumerate(outcomes):
        if isinstance(outcome, AiiError):
            yield Submission(order, image, None, False, error=outcome)
        else:
            asset_id = getattr(outcome.request, "asset_id", "")
            yield Submission(order, image, outcome.job_id, outcome.new, asset_id=asset_id)


def wait_for_all(
    producer: Producer, timeout_s: float | None, retry_policy: RetryPolicy, progress: Progress
) -> Iterator[Submission]:
    """Yield the images whose jobs end before the deadline; the others remain in `progress`."""
    for job_id, outcome in ended_jobs(producer, timeout_s, retry_policy, progress.open):
        for s in progress.images.pop(job_id):
            yield _ended(s, outcome)


def ended_jobs(
    producer: Producer, timeout_s: float | None, retry_policy: RetryPolicy, pending: dict[str, None]
) -> Iterator[tuple[str, ImageResult | AiiError]]:
    """Each job that ends, with its result or with why that cannot be read; it is taken out of `pending`."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while pending:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            for job_id, result in producer.wait_for(list(pending), left_s):
                del pending[job_id]
                yield job_id, result
        except Unavailable as error:
            retry_policy.wait(error)
        except (AiiError, ValidationError):
            # One of the jobs cannot be told the end of; each is asked by itself which.
            yield from _one_by_one(producer, pending)
        else:
            return


def _one_by_one(producer: Producer, pending: dict[str, None]) -> Iterator[tuple[str, ImageResult | AiiError]]:
    for job_id in list(pending):
        try:
            outcomes: Iterable[ImageResult | AiiError] = [result for _, result in producer.wait_for([job_id], 0)]
        except Unavailable:
            raise
        except AiiError as error:
            outcomes = [error]
        except ValidationError:
            outcomes = [AiiError(f"The document of job {job_id} cannot be read: is this program an older version?")]
        for outcome in outcomes:
            del pending[job_id]
            yield job_id, outcome


def _try(submit: Callable[[Found], Job], image: Found, retry_policy: RetryPolicy, progress: Progress) -> Job | AiiError:
    while True:
        try:
            job = submit(image)
        except Unavailable as error:
            retry_policy.wait(error)
        except AiiError as error:
            progress.tried.append(image.name)
            return error
        else:
            progress.open[job.job_id] = None
            progress.tried.append(image.name)
            return job


def _ended(s: Submission, outcome: ImageResult | AiiError) -> Submission:
    if isinstance(outcome, AiiError):
        return replace(s, error=outcome)
    if isinstance(outcome, FailureResult):
        return replace(s, error=error_of(outcome.code, outcome.message))
    return replace(s, result=outcome)
