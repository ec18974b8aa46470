"""What ``aii status`` shows."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.connection import connect_redis, named_errors, redis_address
from tasks.ledger import JobRecord, Ledger
from tasks.names import QUEUES, worker_presence
from tasks.settings import Settings, load_settings
from tasks.storage import ObjectStore


@dataclass(frozen=True)
class QueueStatus:
    queue: str
    waiting: int
    oldest_age_s: float | None


@dataclass(frozen=True)
class Status:
    redis: str
    s3: str
    flower: str | None
    workers: list[dict[str, str]]
    queues: list[QueueStatus]
    running: int
    counts: dict[str, int]
    failures: list[JobRecord]


def collect_status(settings: Settings | None = None) -> Status:
    """Ask Redis and S3; raises RedisUnavailable or StorageUnavailable, naming the address."""
    settings = settings or load_settings()
    ledger = Ledger.connect(settings)
    ledger.check()
    ObjectStore.connect(settings).check()
    queues = [QueueStatus(queue, *ledger.waiting(queue)) for queue in QUEUES]
    flower = f"http://{settings.flower_address}:{settings.flower_port}"
    return Status(
        redis=redis_address(settings),
        s3=settings.s3_endpoint,
        flower=flower if settings.flower_password.get_secret_value() else None,
        workers=present_workers(settings),
        queues=queues,
        running=ledger.running(),
        counts=ledger.counts(),
        failures=ledger.recent_failures(),
    )


def present_workers(settings: Settings) -> list[dict[str, str]]:
    """The notes of all warm workers: worker, pid, device, extractor, queues, started_at."""
    client = connect_redis(settings)
    with named_errors(redis_address(settings)):
        keys = sorted(client.scan_iter(match=worker_presence("*"), count=1000))
        notes = [client.hgetall(key) for key in keys]
    return [note for note in notes if note]
