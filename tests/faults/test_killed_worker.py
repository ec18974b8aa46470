"""Nothing is lost and nothing is visible twice, whatever dies."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from producer import Job, Producer
from tasks.connection import connect_redis, redis_address
from tasks.errors import RedisUnavailable
from tasks.ledger.states import JobState
from tasks.messages import ActivationOptions
from tasks.names import journal_stream
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import wait_for

COUNT = 100


def kill_server(port: str) -> None:
    """SIGKILL the process that listens on a port, as its command line says; `aii up` starts it again."""
    killed = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode().split("\0")
                if any(word.endswith(f":{port}") for word in words) and not words[0].endswith("python"):
                    os.kill(int(folder.name), signal.SIGKILL)
                    killed += 1
    assert killed == 1


def done(producer: Producer, jobs: list[Job]) -> int:
    return sum(state is JobState.DONE for state in producer.ledger.states([job.job_id for job in jobs]))


def test_a_worker_killed_three_times_amid_100_activations_loses_and_doubles_nothing(
    start_worker: Callable[..., WorkerProcess], producer: Producer, store: ObjectStore, settings: Settings
) -> None:
    jobs = [producer.activate(image) for image in crops(COUNT)]
    with connect_redis(settings) as client:
        client.lrem("activate", 1, client.lindex("activate", -50))  # one message is deleted by hand as well
        for part in (20, 45, 70):
            worker = start_worker()
            wait_for(lambda wanted=part: done(producer, jobs) >= wanted, "the worker does not get on")  # type: ignore[misc]
            worker.kill()
        start_worker()
        wait_for(lambda: done(producer, jobs) == COUNT, "jobs were lost")
        registered = Counter(fields["asset"] for _, fields in client.xrange(journal_stream("starter")))
    results = [producer.result(job.job_id) for job in jobs]
    assert all(isinstance(result, ActivationResult) for result in results)
    assets = {result.asset_id for result in results if isinstance(result, ActivationResult)}
    assert len(assets) == COUNT
    assert registered == Counter(assets)
    for result in results:
        assert isinstance(result, ActivationResult)
        assert store.exists(Bucket.PROTECTED, result.protected_key)


def test_redis_and_s3_killed_amid_activations_delay_jobs_but_fail_none(
    start_worker: Callable[..., WorkerProcess], producer: Producer, settings: Settings
) -> None:
    worker = start_worker()
    jobs = [producer.activate(image, options=ActivationOptions(steps=9)) for image in crops(COUNT)]
    for part, port in ((15, settings.s3_endpoint), (40, redis_address(settings)), (65, settings.s3_endpoint)):
        wait_for(lambda wanted=part: finished(producer, jobs) >= wanted, "the worker does not get on")  # type: ignore[misc]
        kill_server(port.rpartition(":")[2])
    wait_for(lambda: finished(producer, jobs) == COUNT, "jobs were lost")
    assert {producer.ledger.get(job.job_id).state for job in jobs} == {JobState.DONE}
    assert worker.alive()


def finished(producer: Producer, jobs: list[Job]) -> int:
    """Jobs that have ended well, 0 while Redis is away."""
    with suppress(RedisUnavailable):
        return done(producer, jobs)
    return 0
