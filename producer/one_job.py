"""A command that asks for one thing, and waits for it: ``aii explain`` and ``aii feedback``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from producer import output
from producer.client import Producer
from producer.explanation import explanation_rows
from producer.job import Job
from producer.retry_policy import worker_expected
from producer.search import Search
from producer.session import Batch, Wanted, missing_worker, prepare, withdraw, withdrawn
from tasks.command_line import echo
from tasks.errors import DeadlineExceeded, InvalidRequest
from tasks.ledger.operations import Operations
from tasks.messages import Opinion, QueryOptions, validated
from tasks.names import QUEUE_QUERY
from tasks.results import ExplanationResult, FeedbackResult, GoodResult, QueryResult
from tasks.streams import read_stdin

__all__ = ["explain", "feedback"]


def explain(image: str, asset_id: str, collection: str | None, wanted: Wanted, chosen: dict[str, Any]) -> None:
    """Print why a query of an image finds an asset, or does not; `chosen` holds the fields of QueryOptions.

    Raises:
        AiiError: the image or the asset cannot be used, or no answer came in time.
    """
    options = validated(QueryOptions, chosen)
    data = read_stdin() if image == "-" else image
    batch = prepare(Search(), wanted, QUEUE_QUERY)
    result = _done(batch, wanted, lambda p: p.explain(data, asset_id, collection=collection, options=options))
    assert isinstance(result, ExplanationResult)
    if wanted.as_json:
        echo(result.model_dump_json())
        return
    for heading, text in explanation_rows(result):
        echo(f"{heading:<10}{text}")


def feedback(part: str, opinion: Opinion, asset_id: str | None, wanted: Wanted) -> None:
    """Record whether the match of a query, which is named by the first digits of its job, is a copy.

    Raises:
        AiiError: the job is no query, did not find that asset, or is not known.
    """
    batch = prepare(Search(), wanted, QUEUE_QUERY)
    job_id = Operations.connect(batch.settings).find(part)
    answer = batch.producer.result(job_id)
    if not isinstance(answer, QueryResult):
        raise InvalidRequest(f"Job {job_id} is no query that was answered: name the job of an answer.")
    result = _done(batch, wanted, lambda producer: producer.feedback(answer, opinion, asset_id))
    assert isinstance(result, FeedbackResult)
    if wanted.as_json:
        echo(result.model_dump_json())
    else:
        output.note(f"{result.asset_id} is {result.status} for the image of query {result.query_job}.")


def _done(batch: Batch, wanted: Wanted, submit: Callable[[Producer], Job]) -> GoodResult:
    job = batch.retry_policy.call(lambda: submit(batch.producer))
    batch.progress.open[job.job_id] = None
    try:
        with worker_expected(lambda: missing_worker(batch), output.note):
            return batch.retry_policy.call(lambda: job.wait(wanted.timeout_s))
    except DeadlineExceeded:
        raise withdrawn(batch, [job.job_id], wanted.timeout_s) from None
    except KeyboardInterrupt:
        withdraw(batch, [job.job_id])
        raise
