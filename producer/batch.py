"""Many images at once: upload in parallel, wait for all; each succeeds or fails by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from producer.client import Job, Producer
from producer.images import Found
from tasks.errors import AiiError, DeadlineExceeded, Unavailable, error_of
from tasks.results import ActivationResult, FailureResult, QueryResult

_UPLOADS = 8


@dataclass(frozen=True)
class Submission:
    """What became of one image: a result or an error."""

    order: int
    found: Found
    job_id: str | None
    new: bool
    result: ActivationResult | QueryResult | None = None
    error: AiiError | None = None


def run_batch(
    producer: Producer, found: Sequence[Found], submit: Callable[[Found], Job], timeout_s: float | None
) -> Iterator[Submission]:
    """Yield every image once, as it ends.

    Raises:
        Unavailable: a service went away while images were submitted.
    """
    waiting: dict[str, list[Submission]] = {}
    jobs: dict[str, Job] = {}
    with ThreadPoolExecutor(_UPLOADS) as pool:
        for order, (image, outcome) in enumerate(zip(found, pool.map(lambda i: _try(submit, i), found), strict=True)):
            if isinstance(outcome, AiiError):
                yield Submission(order, image, None, False, error=outcome)
            else:
                # Two files of the same content are one job with two names.
                jobs[outcome.job_id] = outcome
                waiting.setdefault(outcome.job_id, []).append(Submission(order, image, outcome.job_id, outcome.new))
    for job, result in producer.wait_all(jobs.values(), timeout_s):
        for s in waiting.pop(job.job_id):
            yield _ended(s, result)
    for submissions in waiting.values():
        for s in submissions:
            late = DeadlineExceeded(f"Not done after {timeout_s} s; the job goes on: run the same command again later.")
            yield Submission(s.order, s.found, s.job_id, s.new, error=late)


def _try(submit: Callable[[Found], Job], image: Found) -> Job | AiiError:
    try:
        return submit(image)
    except Unavailable:
        raise
    except AiiError as error:
        return error


def _ended(s: Submission, result: ActivationResult | QueryResult | FailureResult) -> Submission:
    if isinstance(result, FailureResult):
        return Submission(s.order, s.found, s.job_id, s.new, error=error_of(result.code, result.message))
    return Submission(s.order, s.found, s.job_id, s.new, result=result)
