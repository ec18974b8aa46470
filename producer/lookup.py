"""How ``aii lookup`` runs: reads vectors from a file, looks them up in parts, and prints an answer for each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from producer import output
from producer.job import LookupJob
from producer.retry_policy import worker_expected
from producer.search import Search
from producer.session import Batch, Wanted, missing_worker, prepare, withdraw, withdrawn
from producer.vectors import vectors_in
from tasks.command_line import echo
from tasks.errors import AiiError, DeadlineExceeded, NotFound
from tasks.messages import QueryOptions, validated
from tasks.names import QUEUE_QUERY
from tasks.results import LookupAnswer
from tasks.streams import read_stdin

__all__ = ["lookup"]

# In one job, so that its document stays small and several workers share a long file.
_MOST_AT_ONCE: Final = 250
_MOST_MATCHES: Final = 5_000


def lookup(path: str, collection: str | None, extractor: str | None, wanted: Wanted, chosen: dict[str, Any]) -> None:
    """Print what is nearest to each vector of a file; `chosen` holds the fields of QueryOptions.

    Raises:
        AiiError: the file, a vector or an option cannot be used, or no answer came in time.
    """
    options = validated(QueryOptions, chosen)
    vectors = vectors_in(_read(path))
    batch = prepare(Search(), wanted, QUEUE_QUERY)
    call = batch.retry_policy.call
    jobs: list[LookupJob] = []
    try:
        for part in vectors.split(max(1, min(_MOST_AT_ONCE, _MOST_MATCHES // options.top_k))):
            ask = partial(batch.producer.query_vectors, part)
            jobs.append(call(partial(ask, collection=collection, options=options, extractor=extractor)))
            batch.progress.open[jobs[-1].job_id] = None
        for number, answer in enumerate(_answers(batch, jobs, wanted.timeout_s)):
            echo(_json_line(number, answer) if wanted.as_json else f"{number}: {output.answer_line(answer)}")
    except DeadlineExceeded:
        raise withdrawn(batch, list(batch.progress.open), wanted.timeout_s) from None
    except (AiiError, KeyboardInterrupt):
        withdraw(batch, list(batch.progress.open))
        raise


def _answers(batch: Batch, jobs: Sequence[LookupJob], timeout_s: float | None) -> Iterator[LookupAnswer]:
    """Those of all jobs, in order."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with worker_expected(lambda: missing_worker(batch), output.note):
        for job in jobs:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            result = batch.retry_policy.call(partial(job.wait, left_s))
            del batch.progress.open[job.job_id]
            yield from result.answers


def _json_line(number: int, answer: LookupAnswer) -> str:
    return json.dumps({"vector": number} | answer.model_dump(mode="json"))


def _read(path: str) -> bytes:
    if path == "-":
        return read_stdin()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror or error}.") from error
