"""What ``aii status`` shows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from pydantic import ValidationError

from tasks.connection import connect_redis, redis_address
from tasks.documents import read_result
from tasks.errors import NotFound, StorageUnavailable
from tasks.monitoring.observer import read_overview
from tasks.monitoring.overview import Overview
from tasks.monitoring.presence import WorkerNote, present_workers
from tasks.results import ActivationResult
from tasks.settings import Settings, load_settings
from tasks.storage import ObjectStore

__all__ = ["Status", "collect_status", "warm_workers"]

_RESULTS = 5


@dataclass(frozen=True)
class Status:
    """The services' addresses, the overview and the latest results; `s3_problem` says why S3 cannot be used, if so."""

    redis: str
    s3: str
    s3_problem: str | None
    flower: str | None
    overview: Overview
    results: list[ActivationResult]


def collect_status(settings: Settings | None = None) -> Status:
    """Ask Redis and S3; raises RedisUnavailable, without which nothing is known."""
    settings = settings or load_settings()
    overview = read_overview(settings)
    flower = f"http://{settings.flower_address}:{settings.flower_port}"
    results, problem = _latest_results(settings, overview.latest[:_RESULTS])
    return Status(
        redis=redis_address(settings),
        s3=settings.s3_endpoint,
        s3_problem=problem,
        flower=flower if settings.flower_password.get_secret_value() else None,
        overview=overview,
        results=results,
    )


def warm_workers(settings: Settings) -> list[WorkerNote]:
    """The notes of all warm workers; raises RedisUnavailable."""
    with closing(connect_redis(settings)) as client:
        return present_workers(client)


def _latest_results(settings: Settings, job_ids: list[str]) -> tuple[list[ActivationResult], str | None]:
    """The documents of the last activations, newest first, and what is wrong with S3."""
    results: list[ActivationResult] = []
    store = ObjectStore.connect(settings)
    try:
        store.check()
        for job_id in job_ids:
            results += _activation(store, job_id)
    except StorageUnavailable as error:
        return results, error.message
    return results, None


def _activation(store: ObjectStore, job_id: str) -> list[ActivationResult]:
    try:
        result = read_result(store, job_id)
    except (NotFound, ValidationError):  # deleted since, or of another version
        return []
    return [result] if isinstance(result, ActivationResult) else []
