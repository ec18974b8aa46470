"""What ``aii status`` shows."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.connection import connect_redis, redis_address
from tasks.overview import Overview, look
from tasks.presence import WorkerNote, present_workers
from tasks.settings import Settings, load_settings
from tasks.storage import ObjectStore

__all__ = ["Status", "collect_status", "warm_workers"]


@dataclass(frozen=True)
class Status:
    """Where the services are, and how it goes."""

    redis: str
    s3: str
    flower: str | None
    overview: Overview


def collect_status(settings: Settings | None = None) -> Status:
    """Ask Redis and S3; raises RedisUnavailable or StorageUnavailable, naming the address."""
    settings = settings or load_settings()
    overview = look(settings)
    ObjectStore.connect(settings).check()
    flower = f"http://{settings.flower_address}:{settings.flower_port}"
    return Status(
        redis=redis_address(settings),
        s3=settings.s3_endpoint,
        flower=flower if settings.flower_password.get_secret_value() else None,
        overview=overview,
    )


def warm_workers(settings: Settings) -> list[WorkerNote]:
    """The notes of all warm workers; raises RedisUnavailable."""
    return present_workers(connect_redis(settings), redis_address(settings))
