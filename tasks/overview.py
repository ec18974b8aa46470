"""Everything an operator wants to see at once, as one document: for `aii status`, the page in Flower, Prometheus."""

from __future__ import annotations

from typing import Final

from tasks.connection import connect_redis, redis_address
from tasks.ledger import JobRecord
from tasks.messages import Frozen
from tasks.metrics import Counters, Failure, Metrics
from tasks.names import QUEUE_OF_TASK, QUEUES, TASK_ACTIVATE, TASK_QUERY
from tasks.operations import Operations
from tasks.presence import CollectionState, WorkerNote, present_workers
from tasks.settings import Settings

__all__ = ["PAPER_MS", "FailureState", "Overview", "QueueState", "StageState", "look"]

WINDOW_S: Final = 300
_RATE_S: Final = 60
_FAILED_JOBS: Final = 20
# Fernandez et al., "Active Image Indexing", ICLR 2023: SSCD (ResNet-50 at 288 × 288) on one GPU, images in batches;
# IVF4096,PQ8x8 over one million images, nprobe 1.
PAPER_MS: Final = {"activation, 10 steps": 39.8, "activation, 1 step": 4.3, "search among 1 M": 0.38}
# In the order in which an image passes them.
STAGES: Final = {
    TASK_ACTIVATE: (
        "fetch", "decode", "prepare", "device", "optimise", "step", "compose", "encode", "verify", "quality", "upload",
        "journal", "total",
    ),
    TASK_QUERY: ("fetch", "decode", "extract", "search", "total"),
}  # fmt: skip


class StageState(Frozen):
    """How long a stage took, for one image, in the window; milliseconds."""

    task: str
    stage: str
    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class QueueState(Frozen):
    """A queue; `drain_s` is how long it takes to empty at the rate of the window, None when nothing was done in it."""

    queue: str
    waiting: int
    oldest_age_s: float | None
    drain_s: float | None


class FailureState(Frozen):
    """An error code, how often it came in the window, and its last message."""

    code: str
    count: int
    message: str
    job_id: str
    at: float


class FailedJob(Frozen):
    """A job that can be retried."""

    job_id: str
    task: str
    attempts: int
    error_code: str
    error_message: str


class Overview(Frozen):
    """The state of the whole system; stages and failures of the last `window_s` seconds, rates of the last minute."""

    window_s: int
    images_per_s: float
    queries_per_s: float
    paper_ms: dict[str, float]
    stages: list[StageState]
    queues: list[QueueState]
    running: int
    counts: dict[str, int]
    workers: list[WorkerNote]
    collections: list[CollectionState]
    latest: list[str]
    failures: list[FailureState]
    failed_jobs: list[FailedJob]


def look(settings: Settings, window_s: int = WINDOW_S) -> Overview:
    """Ask Redis; raises RedisUnavailable."""
    client, address = connect_redis(settings), redis_address(settings)
    try:
        metrics, operations = Metrics(client, address), Operations(client, address, settings.keep_closed_s)
        counted, lately = metrics.last(window_s), metrics.last(_RATE_S)
        workers = present_workers(client, address)
        return Overview(
            window_s=window_s,
            images_per_s=_done(lately, TASK_ACTIVATE) / _RATE_S,
            queries_per_s=_done(lately, TASK_QUERY) / _RATE_S,
            paper_ms=PAPER_MS,
            stages=_stages(counted),
            queues=[_queue(operations, counted, queue, window_s) for queue in QUEUES],
            running=operations.running(),
            counts=operations.counts(),
            workers=workers,
            collections=_collections(workers),
            latest=metrics.latest(),
            failures=[_failure(failure, counted) for failure in metrics.failures()],
            failed_jobs=[_failed(record) for record in operations.recent_failures(_FAILED_JOBS)],
        )
    finally:
        client.close()


def _stages(counted: Counters) -> list[StageState]:
    states = []
    for task, stages in STAGES.items():
        for stage in stages:
            seen = counted.stage(task, stage)
            if seen.count:
                p50, p95, p99 = (seen.quantile_ms(share) or 0.0 for share in (0.5, 0.95, 0.99))
                states.append(
                    StageState(
                        task=task, stage=stage, count=seen.count, mean_ms=seen.mean_ms,
                        p50_ms=p50, p95_ms=p95, p99_ms=p99,
                    )
                )  # fmt: skip
    return states


def _queue(operations: Operations, counted: Counters, queue: str, window_s: int) -> QueueState:
    waiting, age_s = operations.waiting(queue)
    closed = sum(n for (task, _), n in counted.outcomes.items() if QUEUE_OF_TASK.get(task) == queue)
    drain_s = waiting * window_s / closed if closed else None
    return QueueState(queue=queue, waiting=waiting, oldest_age_s=age_s, drain_s=drain_s)


def _collections(workers: list[WorkerNote]) -> list[CollectionState]:
    """Each as the worker that is furthest holds it."""
    newest: dict[str, CollectionState] = {}
    for state in (state for worker in workers for state in worker.collections):
        known = newest.get(state.name)
        if known is None or (state.generation, state.journal) > (known.generation, known.journal):
            newest[state.name] = state
    return [newest[name] for name in sorted(newest)]


def _failure(failure: Failure, counted: Counters) -> FailureState:
    return FailureState(
        code=failure.code, count=counted.failures[failure.code], message=failure.message, job_id=failure.job_id,
        at=failure.at,
    )  # fmt: skip


def _failed(record: JobRecord) -> FailedJob:
    return FailedJob(
        job_id=record.job_id, task=record.task, attempts=record.attempts, error_code=record.error_code or "",
        error_message=record.error_message or "",
    )  # fmt: skip


def _done(counted: Counters, task: str) -> int:
    return sum(n for (which, status), n in counted.outcomes.items() if which == task and status != "failed")
