"""The state of the whole system as one document, for `aii status`, the page in Flower and Prometheus.

:mod:`tasks.monitoring.observer` reads it from Redis.
"""

from __future__ import annotations

from tasks.messages import Frozen
from tasks.monitoring.presence import CollectionState, WorkerNote

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
]


class Comparison(Frozen):
    """A latency of the paper and ours in the window, for one image; milliseconds, None when there was none.

    `steps` is how many the optimiser took on average: an image that has settled stops.
    """

    name: str
    title: str
    paper_ms: float
    paper_setting: str
    count: int
    p50_ms: float | None
    p95_ms: float | None
    steps: float | None

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


class Point(Frozen):
    """Ten seconds of the past, from `at` on; `waiting` over all queues, None where it was not recorded."""

    at: int
    images_per_s: float
    queries_per_s: float
    failed: int
    optimise_p95_ms: float | None
    query_p95_ms: float | None
    waiting: int | None


class Overview(Frozen):
    """The state of the whole system `at` some time: figures of the last `window_s` seconds, rates of the last minute.

    `counts` are since Redis was last emptied; `failed` is how many failed jobs are kept, of which `failed_jobs` are the
    latest; `outdated` says of those of the `latest` whose asset was activated again, or removed, since; `dead`, how
    many dead letters.
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
    counts: dict[str, int]
    workers: list[WorkerNote]
    collections: list[CollectionState]
    latest: list[str]
    outdated: dict[str, str]
    failures: list[FailureState]
    failed: int
    failed_jobs: list[FailedJob]
    dead: int = 0
    feedback: FeedbackState = FeedbackState()
    history: list[Point]
