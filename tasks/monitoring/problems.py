"""What is wrong now: found in an overview, and shown first, on the page, in `aii status` and to Prometheus.

Each problem has a section in deploy/README.md, under its `anchor`, which says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from tasks.messages import Frozen
from tasks.monitoring.presence import CollectionState, WorkerNote
from tasks.names import QUEUES
from tasks.settings import Settings
from tasks.shards import absent_shards

__all__ = ["ANCHORS", "Health", "Problem", "problem", "problems_of"]

# Where deploy/README.md says what to do, by problem; in the order in which they are shown.
ANCHORS: Final = {
    "redis_silent": "aiiredisaway",
    "no_figures": "aiifloweraway",
    "s3_silent": "aiistorageaway",
    "no_worker": "aiinoworker",
    "lane_without_worker": "aiilanewithoutworker",
    "shard_without_worker": "aiishardwithoutworker",
    "background_dead": "aiibackgrounddead",
    "disk_full": "aiidiskfull",
    "redis_full": "aiiredisfull",
    "failures_rising": "aiifailures",
    "dead_letters": "aiideadletters",
    "queue_old": "aiiqueueold",
    "target_missed": "aiitargetmissed",
    "index_stale": "aiiindexstale",
    "worker_behind": "aiiworkerbehind",
    "clock_off": "aiiclockoff",
}
_SEVERE: Final = {"redis_silent", "no_figures", "s3_silent", "no_worker", "lane_without_worker", "shard_without_worker",
                  "background_dead", "disk_full", "redis_full"}  # fmt: skip
_FEWEST_JOBS: Final = 5  # of which a share of failures is told
# The longest pause of a healthy background thread: it may be downloading a generation.
_IDLE_S: Final = 120.0
_OPENING: Final = ("follower", "shard-")  # names, or their beginnings, of threads that may download a collection
_OPENING_IDLE_S: Final = 900.0
_CLOCK_S: Final = 5.0  # S3 refuses requests that are 15 minutes off; people read the times of logs and documents


class Problem(Frozen):
    """One of them: `title` fits a headline, `detail` says more, and `anchor` is its section of the operations."""

    code: str
    severity: Literal["severe", "warning"]
    title: str
    detail: str
    anchor: str


class Health(Frozen):
    """What problems are found in.

    Attributes:
        jobs, failed: that ended in the last minutes; `codes`, the failed ones by error code.
        oldest_s: by queue, for how long its oldest job has waited.
        redis_used: the share of Redis' memory limit that is used; None without a limit.
        missed: figures that miss the operator's targets, in words.
    """

    workers: list[WorkerNote]
    collections: list[CollectionState]
    oldest_s: dict[str, float]
    waiting: dict[str, int]
    jobs: int
    failed: int
    codes: dict[str, int]
    dead: int
    redis_used: float | None = None
    missed: list[str] = Field(default_factory=list)


def problem(code: str, title: str, detail: str) -> Problem:
    """One of the problems that :data:`ANCHORS` lists."""
    severity: Literal["severe", "warning"] = "severe" if code in _SEVERE else "warning"
    return Problem(code=code, severity=severity, title=title, detail=detail, anchor=ANCHORS[code])


def problems_of(health: Health, settings: Settings) -> list[Problem]:
    """What is wrong, the worst first."""
    order = list(ANCHORS)
    return sorted(_found(health, settings), key=lambda found: order.index(found.code))


def _found(health: Health, settings: Settings) -> Iterator[Problem]:
    yield from _workers(health)
    yield from _background(health.workers)
    yield from _space(health, settings.target_free_disk_share)
    yield from _failures(health, settings.target_failed_share)
    yield from _queues(health, settings)
    yield from (problem("target_missed", text, "A target of AII_TARGET_… is missed.") for text in health.missed)
    yield from _index(health, settings.target_journal_entries)
    yield from _clocks(health.workers)


def _workers(health: Health) -> Iterator[Problem]:
    if not health.workers:
        yield problem("no_worker", "No worker", "Jobs wait: start workers with `aii up` or `aii worker`.")
        return
    for queue in QUEUES:
        if not any(queue in worker.queues for worker in health.workers):
            waiting = health.waiting.get(queue, 0)
            detail = f"{waiting:,} of its jobs wait. Start one: `aii worker --queues {queue}`."
            yield problem("lane_without_worker", f"No worker takes jobs of the queue {queue}", detail)
    for shard in absent_shards(worker.shard for worker in health.workers):
        detail = f"Queries go without 1/{shard.count} of every index. Start one: `aii worker --shard {shard}`."
        yield problem("shard_without_worker", f"No worker has the shard {shard}", detail)


def _background(workers: list[WorkerNote]) -> Iterator[Problem]:
    for worker in workers:
        for name, reason in worker.dead.items():
            yield problem("background_dead", f"{name} of {worker.worker} is dead", f"{reason} Restart this worker.")
        for name, idle_s in worker.idle_s.items():
            if name not in worker.dead and idle_s > (_OPENING_IDLE_S if name.startswith(_OPENING) else _IDLE_S):
                detail = f"Its last round ended {idle_s:.0f} s ago. Restart this worker."
                yield problem("background_dead", f"{name} of {worker.worker} is stuck", detail)


def _space(health: Health, share: float) -> Iterator[Problem]:
    for worker in health.workers:
        free, total = worker.disk_free_bytes, worker.disk_total_bytes
        if free is not None and total and free / total < share:
            left = f"{free / 2**30:.1f} GiB ({free / total:.1%}) are free in its AII_STATE_DIR."
            yield problem("disk_full", f"The disk of {worker.worker} is nearly full", left)
    if health.redis_used is not None and 1 - health.redis_used < share:
        detail = f"{health.redis_used:.1%} of `maxmemory` are used; at 100 % nothing more is accepted."
        yield problem("redis_full", "Redis' memory is nearly full", detail)


def _failures(health: Health, share: float) -> Iterator[Problem]:
    if health.jobs >= _FEWEST_JOBS and health.failed > share * health.jobs:
        worst = sorted(health.codes.items(), key=lambda pair: -pair[1])[:3]
        detail = ", ".join(f"{count:,} {code}" for code, count in worst if count)
        title = f"{health.failed / health.jobs:.0%} of the jobs fail"
        yield problem("failures_rising", title, f"{health.failed:,} of {health.jobs:,} lately: {detail}.")
    if health.dead:
        title = f"{health.dead:,} dead letter{'s' if health.dead > 1 else ''}"
        yield problem("dead_letters", title, "Messages or records could not be used: `aii jobs dead` lists them.")


def _queues(health: Health, settings: Settings) -> Iterator[Problem]:
    for queue, age_s in health.oldest_s.items():
        target_s = settings.target_query_wait_s if queue == "query" else settings.target_job_wait_s
        if age_s > target_s:
            title = f"The oldest job of the queue {queue} has waited for {_time(age_s)}"
            yield problem("queue_old", title, f"The target is {_time(target_s)}: add workers.")


def _index(health: Health, most: int) -> Iterator[Problem]:
    for held in health.collections:
        if held.journal > most:
            detail = f"{held.journal:,} changes wait for a compaction; answers are right."
            yield problem("index_stale", f"The index of {held.name} is stale", detail)
    newest = {held.name: held.generation for held in health.collections}
    for worker in health.workers:
        for held in worker.collections:
            if held.generation < newest.get(held.name, 0):
                detail = f"It answers from generation {held.generation}, others from {newest[held.name]}."
                yield problem("worker_behind", f"{worker.worker} is behind in {held.name}", detail)


def _clocks(workers: list[WorkerNote]) -> Iterator[Problem]:
    for worker in workers:
        if worker.clock_offset_s is not None and abs(worker.clock_offset_s) > _CLOCK_S:
            way = "ahead of" if worker.clock_offset_s > 0 else "behind"
            title = f"The clock of {worker.worker} is off"
            yield problem("clock_off", title, f"It is {_time(abs(worker.clock_offset_s))} {way} Redis' clock.")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
