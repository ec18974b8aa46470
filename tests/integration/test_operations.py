"""What operators see and do, on a real Redis and a real S3 server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from producer import Producer
from tasks.app import Sender, create_app
from tasks.connection import connect_redis, redis_address
from tasks.errors import Cancelled, Conflict, JobMissing, NotReady
from tasks.ledger import Claim, JobState, Ledger
from tasks.messages import ActivateRequest
from tasks.metrics import Counters, Failure, Metrics
from tasks.names import TASK_ACTIVATE
from tasks.operations import Operations
from tasks.overview import look
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.integration.test_ledger import QUEUE, claim, request
from tests.photographs import crops
from workers.health import HealthServer


@pytest.fixture
def operations(settings: Settings) -> Operations:
    return Operations.connect(settings)


@pytest.fixture
def metrics(settings: Settings) -> Iterator[Metrics]:
    with connect_redis(settings) as client:
        yield Metrics(client, redis_address(settings))


def submitted(ledger: Ledger) -> ActivateRequest:
    made = request()
    assert ledger.submit([made]) == [True]
    return made


def test_a_waiting_job_can_be_cancelled_and_who_waits_for_it_is_told(
    producer: Producer, operations: Operations, store: ObjectStore
) -> None:
    job = producer.activate(crops(1)[0])
    assert operations.cancel(job.job_id, store) is JobState.QUEUED
    with pytest.raises(Cancelled, match="by an operator"):
        job.wait(5)
    with pytest.raises(Conflict, match="ended already"):
        operations.cancel(job.job_id, store)
    assert operations.jobs(JobState.CANCELLED, 10)[0].job_id == job.job_id


def test_a_running_job_that_is_cancelled_is_no_longer_its_workers(
    ledger: Ledger, operations: Operations, store: ObjectStore
) -> None:
    made = submitted(ledger)
    assert claim(ledger, made.job_id, "token") is Claim.CLAIMED
    assert ledger.holds(made.job_id, "token")
    assert operations.cancel(made.job_id, store) is JobState.RUNNING
    assert not ledger.holds(made.job_id, "token")
    assert not ledger.close(made.job_id, "token", JobState.DONE)
    assert ledger.get(made.job_id).state is JobState.CANCELLED


def test_a_failed_job_can_be_retried_and_a_good_one_cannot(
    ledger: Ledger, operations: Operations, settings: Settings
) -> None:
    made = submitted(ledger)
    claim(ledger, made.job_id, "token")
    ledger.close(made.job_id, "token", JobState.FAILED, "truncated", "cut off")
    assert operations.recent_failures()[0].error_code == "truncated"
    message = operations.retry(made.job_id)
    assert (message.queue, ledger.get(made.job_id).state) == (QUEUE, JobState.QUEUED)
    Sender(create_app(settings), settings).send_again(message)
    with pytest.raises(Conflict, match="only failed and cancelled"):
        operations.retry(made.job_id)
    with pytest.raises(JobMissing):
        operations.retry("0" * 32)


def test_figures_of_several_workers_are_summed_and_stay_bounded(metrics: Metrics, settings: Settings) -> None:
    for worker in range(3):
        counted = Counters()
        for ms in range(1, 101):
            counted.observe(TASK_ACTIVATE, "optimise", float(ms))
        counted.outcomes[TASK_ACTIVATE, "activated"] = 99
        counted.outcomes[TASK_ACTIVATE, "failed"] = 1
        counted.failures["truncated"] = 1
        failure = Failure("truncated", f"cut off {worker}", "0" * 32, 100.0 + worker)
        metrics.publish(counted, [failure], [f"{worker}{n:031d}" for n in range(40)])
    view = look(settings)
    (stage,) = view.stages
    assert (stage.count, stage.mean_ms) == (300, pytest.approx(50.5))
    assert stage.p95_ms == pytest.approx(95, rel=0.05)
    assert view.images_per_s == pytest.approx(297 / 60)
    assert (view.failures[0].count, view.failures[0].message) == (3, "cut off 2")
    assert len(view.latest) <= 24
    assert metrics.total().stage(TASK_ACTIVATE, "optimise").count == 300


def test_the_state_of_a_thousand_waiting_jobs_says_how_long_they_take(ledger: Ledger, settings: Settings) -> None:
    assert all(ledger.submit([request(f"asset-{i}") for i in range(1_000)]))
    queues = {queue.queue: queue for queue in look(settings).queues}
    assert queues[QUEUE].waiting == 1_000
    assert queues[QUEUE].oldest_age_s is not None
    assert queues[QUEUE].drain_s is None  # nothing was done yet, so nobody can tell


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_alive_and_ready_are_two_things(ledger: Ledger) -> None:
    problems = [NotReady("Not warm yet.")]

    def warm() -> None:
        if problems:
            raise problems[0]

    server = HealthServer("127.0.0.1", 0, {"redis": ledger.check, "warm": warm}, Counters)
    server.start()
    try:
        assert get(server.port, "/live")[0] == 200
        status, body = get(server.port, "/ready")
        assert (status, json.loads(body)["missing"]) == (503, {"warm": "Not warm yet."})
        problems.clear()
        assert get(server.port, "/ready") == (200, '{"ready": true, "missing": {}}')
        assert "aii_jobs_total" in get(server.port, "/metrics")[1]
        assert get(server.port, "/else")[0] == 404
    finally:
        server.stop()
