"""The state of the whole system as one document, for `aii status`, the page in Flower and Prometheus.

:mod:`tasks.monitoring.observer` reads it from Redis.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from tasks.messages import Frozen
from tasks.monitoring.presence import CollectionState, Mark, WorkerNote
from tasks.monitoring.problems import Problem

__all__ = [
    "Comparison",
    "FailedJob",
    "FailureState",
    "FeedbackState",
    "Overview",
    "Point",
    "PublishedQuality",
    "QueueState",
    "StageState",
    "WorkerSpeed",
]


class Comparison(Frozen):
    """A latency of the paper and ours in the window, for one image; milliseconds, None when there was none.

    Attributes:
        steps: how many the optimiser took on average: an image that has settled stops.
        target_ms: the operator's target; None without one.
        incomparable: why ours is not measured as the paper's is; "" where it is.
    """

    name: str
    title: str
    paper_ms: float
    paper_setting: str
    count: int
    p50_ms: float | None
    p95_ms: float | None
    steps: float | None
    target_ms: float | None = None
    incomparable: str = ""

    @property
    def paper_per_s(self) -> float:
        """The paper's rate."""
        return 1000 / self.paper_ms

    @property
    def per_s(self) -> float | None:
        """Our rate: of one device, or of one thread for a search."""
        return 1000 / self.p50_ms if self.p50_ms else None

    @property
    def ratio(self) -> float | None:
        """Our median in the paper's; below one is faster."""
        return self.p50_ms / self.paper_ms if self.p50_ms is not None else None


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
    """A queue; `drain_s` is how long it takes to empty at the present rate, None when nothing was done lately."""

    queue: str
    waiting: int
    running: int = 0
    oldest_age_s: float | None
    drain_s: float | None


class PublishedQuality(Frozen):
    """Activations of the window: how many files are verified, and their PSNR in dB (None when there are none)."""

    images: int
    verified: int
    psnr_median_db: float | None
    psnr_lowest_db: float | None


class FailureState(Frozen):
    """An error code, how often it came in the window, and its last message; `at` in seconds since the epoch."""

    code: str
    count: int
    message: str
    job_id: str
    at: float


class FeedbackState(Frozen):
    """Matches that people confirmed and rejected, since Redis was last emptied."""

    confirmed: int = 0
    rejected: int = 0

    @property
    def rejection_rate(self) -> float | None:
        """Share of the rejected among both; None where nothing was said."""
        said = self.confirmed + self.rejected
        return self.rejected / said if said else None


class FailedJob(Frozen):
    """A job that can be retried; `asset_id` for an activation, `failed_at` in seconds since the epoch."""

    job_id: str
    task: str
    asset_id: str | None
    attempts: int
    failed_at: float | None
    error_code: str
    error_message: str
    retry_helps: bool = True


class WorkerSpeed(Frozen):
    """What a worker did in the last minute; the device's time is that of one image, in milliseconds, and None where it
    activated none."""

    worker: str
    device: str
    images_per_s: float
    queries_per_s: float
    device_ms: float | None


class Point(Frozen):
    """Some seconds of the past, from `at` on; `waiting` over all queues, None where it was not recorded; images and
    queries a second by worker and by collection."""

    model_config = ConfigDict(extra="ignore")  # points are kept for a week

    at: int
    seconds: int = 10
    images_per_s: float
    queries_per_s: float
    failed: int
    optimise_p95_ms: float | None
    query_p95_ms: float | None
    waiting: int | None
    workers: dict[str, float] = Field(default_factory=dict)
    collections: dict[str, float] = Field(default_factory=dict)


class Overview(Frozen):
    """The state of the whole system `at` some time: figures of the last `window_s` seconds, rates of the last minute.

    Attributes:
        problems: what is wrong, the worst first.
        ended: how many jobs ended in the window.
        counts: of jobs since Redis was last emptied.
        speeds: what each worker does.
        failed, failed_jobs: how many failed jobs are kept, and the latest of them.
        outdated: those of the `latest` whose asset was activated again, or removed, since.
        dead: how many dead letters there are.
        redis_used: the share of Redis' memory limit; None without one.
        marks: starts of workers and new generations in the time of the history.
    """

    at: float
    window_s: int
    images_per_s: float
    queries_per_s: float
    comparisons: list[Comparison]
    stages: list[StageState]
    quality: PublishedQuality
    queues: list[QueueState]
    running: int
    ended: int = 0
    counts: dict[str, int]
    workers: list[WorkerNote]
    collections: list[CollectionState]
    latest: list[str]
    latest_queries: list[str] = Field(default_factory=list)
    outdated: dict[str, str]
    failures: list[FailureState]
    failed: int
    failed_jobs: list[FailedJob]
    dead: int = 0
    feedback: FeedbackState = FeedbackState()
    problems: list[Problem] = Field(default_factory=list)
    speeds: list[WorkerSpeed] = Field(default_factory=list)
    redis_used: float | None = None
    marks: list[Mark] = Field(default_factory=list)
    history: list[Point]
