"""Reads from Redis all that an overview shows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

import redis

from tasks.connection import connect_redis
from tasks.errors import retry_helps
from tasks.kinds import KINDS, QUEUE_OF_TASK
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.operations import Operations
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.monitoring.comparison import comparisons, missed_targets
from tasks.monitoring.metrics import SLOT_S, Counters, Failure, Metrics, Slot
from tasks.monitoring.overview import (
    FailedJob,
    FailureState,
    FeedbackState,
    Overview,
    Point,
    PublishedQuality,
    QueueState,
    StageState,
    WorkerSpeed,
)
from tasks.monitoring.presence import CollectionState, Mark, WorkerNote, marks_since, present_workers
from tasks.monitoring.problems import Health, problems_of
from tasks.monitoring.series import RANGES, Series, done, point_of, summed
from tasks.names import QUEUES, TASK_ACTIVATE, TASK_FEEDBACK, TASK_QUERY
from tasks.settings import Settings

__all__ = ["Observer", "read_overview"]

WINDOW_S: Final = 300
_RATE_S: Final = 60
_FAILED_JOBS: Final = 20


def read_overview(settings: Settings) -> Overview:
    """Read it once; raises RedisUnavailable."""
    with closing(Observer(settings)) as observer:
        return observer.read()


class Observer:
    """Reads overviews one after the other; raises RedisUnavailable.

    Args:
        history_s: how far back the overview's history goes; half an hour at most.
    """

    def __init__(self, settings: Settings, history_s: int = 0) -> None:
        self._settings = settings
        self._client = connect_redis(settings)
        self._metrics = Metrics(self._client)
        self._series = Series(self._client, self._metrics)
        self._operations = Operations(self._client, settings.keep_closed_s)
        self._dead_letters = DeadLetters(self._client)
        self._history_s = history_s
        self._points: dict[int, Point] = {}
        self._over: tuple[list[int], Counters] = ([], Counters())

    def close(self) -> None:
        self._client.close()

    def total(self) -> Counters:
        """What was counted since Redis was last emptied."""
        return self._metrics.total()

    def note_waiting(self, view: Overview) -> None:
        """Store how many jobs wait, for later histories."""
        self._metrics.note_waiting({queue.queue: queue.waiting for queue in view.queues})

    def history(self, name: str) -> list[Point]:
        """The points of one of :data:`tasks.monitoring.series.RANGES`, oldest first."""
        return self._series.points(RANGES[name])

    def marks(self, seconds: int) -> list[Mark]:
        """Starts of workers and new generations of the last seconds, oldest first."""
        return marks_since(self._client, self._metrics.now_s() - seconds)

    def read(self) -> Overview:
        """All of it; raises RedisUnavailable."""
        view = self._read()
        return view.model_copy(update={"problems": problems_of(_health(view), self._settings)})

    def _read(self) -> Overview:
        now, slots = self._metrics.slots(max(WINDOW_S, self._history_s))
        lately = _since(slots, now - _RATE_S)
        counted, minute = self._summed(_since(slots, now - WINDOW_S)), summed(lately)
        covered_s = now - lately[0].start_s
        workers, latest = present_workers(self._client), self._metrics.latest()
        collections, running = _collections(workers), self._operations.running_by_queue()
        return Overview(
            at=now,
            window_s=WINDOW_S,
            images_per_s=done(minute, TASK_ACTIVATE) / covered_s,
            queries_per_s=done(minute, TASK_QUERY) / covered_s,
            comparisons=comparisons(counted, workers, collections, self._settings),
            stages=_stages(counted),
            quality=_quality(counted),
            queues=[self._queue(queue, lately, now, running[queue]) for queue in QUEUES],
            running=self._operations.running(),
            ended=counted.outcomes.total(),
            counts=self._operations.counts(),
            workers=workers,
            collections=collections,
            latest=latest,
            latest_queries=self._metrics.latest_queries(),
            outdated=self._operations.outdated(latest),
            failures=[_failure(failure, counted) for failure in self._metrics.failures()],
            failed=self._operations.failed(),
            failed_jobs=[_failed(record) for record in self._operations.jobs(JobState.FAILED, _FAILED_JOBS)],
            dead=self._dead_letters.count(),
            feedback=self._feedback(),
            speeds=[_speed(worker, minute, covered_s) for worker in workers],
            redis_used=self._redis_used(),
            marks=self.marks(self._history_s) if self._history_s else [],
            history=self._history(slots) if self._history_s else [],
        )

    def _summed(self, slots: Sequence[Slot]) -> Counters:
        """What was counted in all of them. What is over is added up once; into the last two, workers still count."""
        over = slots[:-2]
        starts = [slot.start_s for slot in over]
        if starts != self._over[0]:
            self._over = starts, summed(over)
        counters = Counters()
        for part in (self._over[1], *(slot.counted for slot in slots[-2:])):
            counters.add(part)
        return counters

    def _feedback(self) -> FeedbackState:
        confirmed, rejected = self._metrics.outcomes(TASK_FEEDBACK, ("confirmed", "rejected"))
        return FeedbackState(confirmed=confirmed, rejected=rejected)

    def _redis_used(self) -> float | None:
        """The share of its limit; None without one, or where the user may not ask."""
        try:
            memory = self._client.info("memory")
        except redis.ResponseError:
            return None
        limit = int(memory.get("maxmemory", 0))
        return int(memory["used_memory"]) / limit if limit else None

    def _history(self, slots: Sequence[Slot]) -> list[Point]:
        """The last slot is not over: its rates would be too low. Into the one before, a worker may still count."""
        points = [self._points.get(slot.start_s) or _point_of(slot) for slot in slots[:-1]]
        self._points = {point.at: point for point in points[:-1]}
        return points

    def _queue(self, queue: str, lately: Sequence[Slot], now: float, running: int) -> QueueState:
        """Time before the first job ended does not count: workers that have just started would seem slow."""
        waiting, age_s = self._operations.waiting(queue)
        busy = [slot for slot in lately if _closed(slot.counted, queue)]
        drain_s = None
        if busy:
            drain_s = waiting * (now - busy[0].start_s) / sum(_closed(slot.counted, queue) for slot in busy)
        return QueueState(queue=queue, waiting=waiting, running=running, oldest_age_s=age_s, drain_s=drain_s)


def _since(slots: Sequence[Slot], start_s: float) -> list[Slot]:
    """Those that are not over at `start_s`."""
    return [slot for slot in slots if slot.start_s + SLOT_S > start_s]


def _stages(counted: Counters) -> list[StageState]:
    return [
        _stage(kind.task, stage, counted)
        for kind in KINDS
        for stage in kind.stages
        if counted.stage(kind.task, stage).count
    ]


def _stage(task: str, stage: str, counted: Counters) -> StageState:
    seen = counted.stage(task, stage)
    p50, p95, p99 = (seen.quantile_ms(share) or 0.0 for share in (0.5, 0.95, 0.99))
    return StageState(
        task=task, stage=stage, count=seen.count, mean_ms=seen.mean_ms, p50_ms=p50, p95_ms=p95, p99_ms=p99
    )


def _quality(counted: Counters) -> PublishedQuality:
    lowest = min(counted.psnr, default=None)
    return PublishedQuality(
        images=done(counted, TASK_ACTIVATE),
        verified=counted.outcomes[TASK_ACTIVATE, "activated"],
        psnr_median_db=_median_psnr_db(counted),
        psnr_lowest_db=lowest / 10 if lowest is not None else None,
    )


def _median_psnr_db(counted: Counters) -> float | None:
    below, total = 0, counted.psnr.total()
    for tenths in sorted(counted.psnr):
        below += counted.psnr[tenths]
        if 2 * below >= total:
            return tenths / 10
    return None


def _collections(workers: list[WorkerNote]) -> list[CollectionState]:
    """Each collection as the worker with the newest state of it has it."""
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
        job_id=record.job_id, task=record.task, asset_id=record.asset_id, attempts=record.attempts,
        failed_at=record.finished_at, error_code=record.error_code or "", error_message=record.error_message or "",
        retry_helps=retry_helps(record.error_code or ""),
    )  # fmt: skip


def _point_of(slot: Slot) -> Point:
    return point_of(slot.start_s, SLOT_S, slot.counted, sum(slot.waiting.values()) if slot.waiting else None)


def _speed(worker: WorkerNote, minute: Counters, covered_s: float) -> WorkerSpeed:
    images, queries, device_us = (
        minute.parts["worker", worker.worker, what] for what in (TASK_ACTIVATE, TASK_QUERY, "device_us")
    )
    return WorkerSpeed(
        worker=worker.worker, device=worker.device, images_per_s=images / covered_s, queries_per_s=queries / covered_s,
        device_ms=device_us / 1000 / images if images else None,
    )  # fmt: skip


def _health(view: Overview) -> Health:
    codes = {failure.code: failure.count for failure in view.failures}
    failed = sum(codes.values())
    return Health(
        workers=view.workers, collections=view.collections, waiting={q.queue: q.waiting for q in view.queues},
        oldest_s={q.queue: q.oldest_age_s for q in view.queues if q.oldest_age_s is not None},
        jobs=view.ended, failed=failed, codes=codes, dead=view.dead, redis_used=view.redis_used,
        missed=missed_targets(view.comparisons),
    )  # fmt: skip


def _closed(counted: Counters, queue: str) -> int:
    return sum(n for (task, _), n in counted.outcomes.items() if QUEUE_OF_TASK.get(task) == queue)
