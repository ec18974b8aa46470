"""Nothing is lost and nothing is visible twice, whatever dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from producer import Job, Producer
from tasks.connection import connect_redis
from tasks.ledger import JobState
from tasks.names import journal_stream
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.conftest import WorkerProcess
from tests.photographs import crops
from tests.waiting import wait_for

COUNT = 100


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
        wait_for(lambda: done(producer, jobs) == COUNT, "jobs were lost", 120)
        registered = Counter(fields["asset"] for _, fields in client.xrange(journal_stream("starter")))
    results = [producer.result(job.job_id) for job in jobs]
    assert all(isinstance(result, ActivationResult) for result in results)
    assets = {result.asset_id for result in results if isinstance(result, ActivationResult)}
    assert len(assets) == COUNT
    assert registered == Counter(assets)
    for result in results:
        assert isinstance(result, ActivationResult)
        assert store.exists(Bucket.PROTECTED, result.protected_key)
