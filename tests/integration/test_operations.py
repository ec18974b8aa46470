"""What operators see and do, on a real Redis and a real S3 server."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from producer import Producer
from producer.retry_policy import NO_RETRIES
from producer.search import Search
from producer.session import Batch, end_early
from tasks.app import Sender, create_app
from tasks.connection import connect_redis
from tasks.documents import read_result
from tasks.errors import Cancelled, Conflict, InvalidRequest, JobMissing, NotReady, RedisUnavailable
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import Claim, JobState
from tasks.messages import ActivateRequest
from tasks.monitoring.metrics import Counters, Failure, Metrics
from tasks.monitoring.observer import Observer, read_overview
from tasks.monitoring.presence import WorkerNote, announce, present_workers, withdraw
from tasks.names import QUEUE_QUERY, TASK_ACTIVATE, worker_presence
from tasks.results import FailureResult, Provenance
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.health import probe
from tests.integration.test_ledger import QUEUE, claim, request
from tests.photographs import crops
from tests.running import Runs
from tests.stack import aii
from tests.waiting import LIMIT_S, wait_for
from workers.delivery.job import Kind, Running
from workers.delivery.leases import Leases
from workers.monitoring.health import HealthServer, Readiness
from workers.monitoring.recorder import Recorder


@pytest.fixture
def operations(settings: Settings) -> Operations:
    return Operations.connect(settings)


@pytest.fixture
def metrics(settings: Settings) -> Iterator[Metrics]:
    with connect_redis(settings) as client:
        yield Metrics(client)


def submitted(ledger: Ledger) -> ActivateRequest:
    made = request()
    assert ledger.submit([made]) == [True]
    return made


def closed(ledger: Ledger, name: str, state: JobState) -> str:
    made = request(name)
    ledger.submit([made])
    claim(ledger, made.job_id, "token")
    code = "truncated" if state is JobState.FAILED else ""
    assert ledger.close(made.job_id, "token", state, code, code)
    return made.job_id


def test_a_waiting_job_can_be_cancelled_and_who_waits_for_it_is_told(
    producer: Producer, operations: Operations, store: ObjectStore
) -> None:
    job = producer.activate(crops(1)[0])
    assert operations.cancel(job.job_id, store) is JobState.QUEUED
    with pytest.raises(Cancelled, match="by an operator"):
        job.wait(LIMIT_S)
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


def test_a_job_that_is_being_published_can_not_be_cancelled_however_it_ends(
    ledger: Ledger, operations: Operations, store: ObjectStore
) -> None:
    made = submitted(ledger)
    claim(ledger, made.job_id, "token")
    assert not ledger.begin_publishing(made.job_id, "another token")
    assert ledger.begin_publishing(made.job_id, "token")
    with pytest.raises(Conflict, match="just being published"):
        operations.cancel(made.job_id, store)
    # Its worker died: what it published by then is there, so the job goes on until it is done.
    assert ledger.recovery.requeue(made.job_id, "token")
    with pytest.raises(Conflict, match="just being published"):
        operations.cancel(made.job_id, store)
    claim(ledger, made.job_id, "next")
    assert ledger.close(made.job_id, "next", JobState.DONE)


def test_a_cancelled_job_can_not_begin_to_publish(ledger: Ledger, operations: Operations, store: ObjectStore) -> None:
    made = submitted(ledger)
    claim(ledger, made.job_id, "token")
    operations.cancel(made.job_id, store)
    leases = Leases(ledger, lease_s=20)
    leases.hold(made.job_id, "token")
    with pytest.raises(Cancelled):
        leases.begin_publishing(made.job_id)


class Work:
    """A job's work with one visible effect, and an operator who cancels it before or after."""

    def __init__(self, operations: Operations, store: ObjectStore, *, early: bool) -> None:
        self.effects: list[str] = []
        self.refused = False
        self._operations, self._store, self._early = operations, store, early

    def __call__(self, _request: ActivateRequest, running: Running) -> FailureResult:
        if self._early:
            self._cancel(running)
        running.begin_publishing()
        if not self._early:
            self._cancel(running)
        self.effects.append(running.job_id)
        return failure_result(running.job_id)  # any document will do

    def _cancel(self, running: Running) -> None:
        try:
            self._operations.cancel(running.job_id, self._store)
        except Conflict:
            self.refused = True


@pytest.mark.parametrize("early", [True, False])
def test_a_job_is_either_cancelled_or_published(
    early: bool, settings: Settings, ledger: Ledger, operations: Operations, store: ObjectStore
) -> None:
    made, work, runs = submitted(ledger), Work(operations, store, early=early), Runs(settings, ledger, store)
    how, seen = runs.runner.run(Kind(ActivateRequest, work), made.job_id, made.model_dump(mode="json")), runs.seen
    document = read_result(store, made.job_id)
    assert isinstance(document, FailureResult)
    state = ledger.get(made.job_id).state
    if early:
        assert (how, work.effects, seen, state, document.code) == ("left", [], [], JobState.CANCELLED, "cancelled")
    else:
        assert (work.refused, len(work.effects), len(seen)) == (True, 1, 1)
        assert (state, document.code) == (JobState.FAILED, "truncated")


def test_failed_jobs_are_found_among_any_number_of_good_ones(ledger: Ledger, operations: Operations) -> None:
    failed = [closed(ledger, f"bad-{i}", JobState.FAILED) for i in range(30)]
    for i in range(1_100):
        closed(ledger, f"good-{i}", JobState.DONE)
    assert {record.job_id for record in operations.jobs(JobState.FAILED, 30)} == set(failed)
    assert operations.failed() == 30
    assert len(operations.jobs(JobState.DONE, 50)) == 50


def test_of_two_who_retry_one_job_one_is_told_that_the_other_did(ledger: Ledger, operations: Operations) -> None:
    job_id = closed(ledger, "a", JobState.FAILED)

    def attempt() -> str:
        try:
            return operations.retry(job_id).job_id
        except Conflict as error:
            return error.code

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: attempt(), range(8)))
    assert sorted(answers) == sorted([job_id] + ["conflict"] * 7)
    assert ledger.recovery.queue_states([QUEUE])[QUEUE].seq == 2


def test_a_failed_job_can_be_retried_and_a_good_one_cannot(
    ledger: Ledger, operations: Operations, settings: Settings
) -> None:
    made = submitted(ledger)
    claim(ledger, made.job_id, "token")
    ledger.close(made.job_id, "token", JobState.FAILED, "truncated", "cut off")
    (failed,) = operations.jobs(JobState.FAILED, 10)
    assert (failed.error_code, failed.asset_id) == ("truncated", "a")
    message = operations.retry(made.job_id)
    assert (message.queue, ledger.get(made.job_id).state) == (QUEUE, JobState.QUEUED)
    assert (operations.jobs(JobState.FAILED, 10), operations.failed()) == ([], 0)
    Sender(create_app(settings), settings).send_again(message)
    with pytest.raises(Conflict, match="only failed and cancelled"):
        operations.retry(made.job_id)
    with pytest.raises(JobMissing):
        operations.retry(uuid.uuid4().hex)


def test_figures_of_several_workers_are_summed_and_stay_bounded(metrics: Metrics, settings: Settings) -> None:
    for worker in range(3):
        counted = Counters()
        for ms in range(1, 101):
            counted.observe(TASK_ACTIVATE, "optimise", float(ms))
        counted.outcomes[TASK_ACTIVATE, "activated"] = 99
        counted.outcomes[TASK_ACTIVATE, "failed"] = 1
        counted.failures["truncated"] = 1
        failure = Failure("truncated", f"cut off {worker}", uuid.uuid4().hex, time.time() + worker)
        long_ago = Failure("animated", "one of last year", uuid.uuid4().hex, time.time() - 400 * 86_400)
        metrics.publish(counted, [failure, long_ago], [f"{worker}{n:031d}" for n in range(40)])
    began_at = read_overview(settings).at
    view = read_overview(settings)
    (stage,) = view.stages
    assert (stage.count, stage.mean_ms) == (300, pytest.approx(50.5))
    assert stage.p95_ms == pytest.approx(95, rel=0.05)
    # Whole slots are read, so somewhat more than a minute, and the rate is over just that.
    longest_s, shortest_s = (view.at - (at - 60) // 10 * 10 for at in (began_at, view.at))
    assert 297 / longest_s * 0.99 <= view.images_per_s <= 297 / shortest_s * 1.01
    assert 60 <= shortest_s < 71
    (failure_seen,) = view.failures
    assert (failure_seen.count, failure_seen.message) == (3, "cut off 2")
    assert len(view.latest) <= 24
    assert metrics.total().stage(TASK_ACTIVATE, "optimise").count == 300


def test_any_number_of_figures_is_added_up_exactly(metrics: Metrics) -> None:
    counted = Counters()
    for n in range(1_100):
        counted.failures[f"code-{n}"] = 10**12 + n
    counted.outcomes[TASK_ACTIVATE, "failed"] = 1
    counted.parts["worker", "one", TASK_ACTIVATE] = 3
    for _ in range(2):
        metrics.publish(counted, [], [])
    total = metrics.total()
    assert total.failures == {f"code-{n}": 2 * (10**12 + n) for n in range(1_100)}
    assert not total.parts
    assert sum(slot.counted.parts["worker", "one", TASK_ACTIVATE] for slot in metrics.slots(60)[1]) == 6


def test_a_cold_start_does_not_make_the_queue_look_slow(ledger: Ledger, metrics: Metrics, settings: Settings) -> None:
    ledger.submit([request(f"asset-{i}") for i in range(100)])
    counted = Counters()
    counted.outcomes[TASK_ACTIVATE, "activated"] = 50
    metrics.publish(counted, [], [])
    (queue,) = (queue for queue in read_overview(settings).queues if queue.queue == QUEUE)
    assert queue.drain_s is not None
    assert queue.drain_s < 100 / 50 * 150  # by all five minutes it would be 600 s


def test_running_jobs_count_for_their_queue_and_those_of_a_share_queue_for_the_queue_that_it_is_of(
    ledger: Ledger, operations: Operations, settings: Settings
) -> None:
    for client in ("", "agency", "shop"):
        made = request(f"of-{client}")
        ledger.submit([made], client=client)
        claim(ledger, made.job_id, "token")
    ledger.submit([request("waits")])
    assert operations.running_by_queue() == {QUEUE: 3}
    (queue,) = (queue for queue in read_overview(settings).queues if queue.queue == QUEUE)
    assert (queue.running, queue.waiting) == (3, 1)


def test_a_job_that_is_sent_again_loses_its_place_and_not_its_age(ledger: Ledger, operations: Operations) -> None:
    first = submitted(ledger)
    submitted_at = ledger.get(first.job_id).submitted_at
    wait_for(lambda: (operations.waiting(QUEUE)[1] or 0.0) > 0.1)
    ledger.submit([request("later")])
    assert ledger.recovery.resend(first.job_id, QUEUE, 1)
    later = ledger.get(request("later").job_id).submitted_at
    age_s = operations.waiting(QUEUE)[1]
    assert age_s is not None
    assert age_s >= later - submitted_at
    claim(ledger, first.job_id, "token")
    assert operations.waiting(QUEUE)[0] == 1
    assert ledger.recovery.requeue(first.job_id, "token")
    assert operations.waiting(QUEUE)[0] == 2
    assert operations.waiting(QUEUE)[1] >= age_s


def test_an_observer_reads_what_is_over_once_and_agrees_with_one_that_reads_all(
    metrics: Metrics, settings: Settings
) -> None:
    with closing(Observer(settings, history_s=1_800)) as observer:
        observer.note_waiting(observer.read())
        for _ in range(3):
            counted = Counters()
            counted.observe(TASK_ACTIVATE, "optimise", 12.0)
            counted.outcomes[TASK_ACTIVATE, "activated"] = 1
            metrics.publish(counted, [], [])
            observer.read()
        # Slots are ten seconds long: the rates of all that hold an image add up to three images in ten seconds.
        all_seen = pytest.approx(0.3)
        wait_for(lambda: sum(p.images_per_s for p in observer.read().history) == all_seen, "the slots did not end")
        seen = observer.read()
        with closing(Observer(settings, history_s=1_800)) as another:
            fresh = another.read()
    assert [s.count for s in seen.stages] == [s.count for s in fresh.stages] == [3]
    assert {point.waiting for point in seen.history} == {None, 0}
    assert len(seen.history) in (180, 181)


def test_a_full_redis_is_named_and_what_was_counted_is_published_once_there_is_room(
    metrics: Metrics, settings: Settings
) -> None:
    recorder = Recorder(metrics)
    recorder.observe(failure_result(uuid.uuid4().hex))
    with connect_redis(settings) as client:
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(RedisUnavailable, match="maxmemory"):
                metrics.publish(recorder.total, [], [])
            for _ in range(5):
                recorder.publish()
        finally:
            client.config_set("maxmemory", "0")
    recorder.publish()
    recorder.publish()
    assert recorder.total.failures["truncated"] == 1
    assert metrics.total().failures["truncated"] == 1


def test_workers_are_found_without_a_search_and_gone_when_they_end_or_fall_silent(settings: Settings) -> None:
    with connect_redis(settings) as client:
        for name in ("one", "two"):
            announce(client, note(name), life_s=60)
        assert [worker.worker for worker in present_workers(client)] == ["one", "two"]
        withdraw(client, "one")
        client.delete(worker_presence("two"))  # as its note expires
        assert present_workers(client) == []


def test_the_state_of_a_thousand_waiting_jobs_says_how_long_they_take(ledger: Ledger, settings: Settings) -> None:
    assert all(ledger.submit([request(f"asset-{i}") for i in range(1_000)]))
    queues = {queue.queue: queue for queue in read_overview(settings).queues}
    assert queues[QUEUE].waiting == 1_000
    assert queues[QUEUE].oldest_age_s is not None
    assert queues[QUEUE].drain_s is None  # nothing was done yet, so there is no rate


def failure_result(job_id: str) -> FailureResult:
    provenance = Provenance(worker="w", device="cpu", versions={}, timings_ms={}, finished_at="")
    return FailureResult(task=TASK_ACTIVATE, job_id=job_id, code="truncated", message="cut off", provenance=provenance)


def note(name: str) -> WorkerNote:
    return WorkerNote(
        worker=name, pid=1, device="cpu", extractor="compact", queues=["query"], batch_images=4, memory_bytes=1,
        device_memory_bytes=None, collections=[],
    )  # fmt: skip


def test_alive_and_ready_are_two_things(ledger: Ledger) -> None:
    problems: list[Exception] = [NotReady("Not warm yet.")]

    def warm() -> None:
        if problems:
            raise problems[0]

    readiness = Readiness()
    server = HealthServer("127.0.0.1", 0, readiness, Counters)
    server.start()
    try:
        assert probe(server.port, "/live")[0] == 200
        readiness.starting("The extractor is loaded.")
        status, body = probe(server.port, "/ready")
        assert (status, json.loads(body)["missing"]) == (503, {"start": "The extractor is loaded."})
        readiness.started({"redis": ledger.check, "warm": warm})
        status, body = probe(server.port, "/ready")
        assert (status, json.loads(body)["missing"]) == (503, {"warm": "Not warm yet."})
        problems[0] = ZeroDivisionError()
        status, body = probe(server.port, "/ready")
        assert (status, "ZeroDivisionError" in json.loads(body)["missing"]["warm"]) == (503, True)
        problems.clear()
        assert probe(server.port, "/ready") == (200, '{"ready": true, "missing": {}}')
        readiness.notes["device"] = "cpu: there is no GPU"
        assert json.loads(probe(server.port, "/ready")[1])["device"] == "cpu: there is no GPU"
        assert "aii_jobs_total" in probe(server.port, "/metrics")[1]
        assert probe(server.port, "/else")[0] == 404
        with pytest.raises(InvalidRequest, match="AII_METRICS_PORT"):
            HealthServer("127.0.0.1", server.port, readiness, Counters)
    finally:
        server.stop()


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "withdrawn"])
def test_a_stopped_command_withdraws_the_queries_that_it_was_to_wait_for(
    producer: Producer, settings: Settings, capsys: pytest.CaptureFixture[str], keep: bool
) -> None:
    batch = Batch(producer, settings, Search(), NO_RETRIES, QUEUE_QUERY)
    job_id = producer.query(crops(1)[0]).job_id
    batch.progress.open[job_id] = None
    with pytest.raises(SystemExit):
        end_early(batch, KeyboardInterrupt(), keep=keep)
    assert (Ledger.connect(settings).states([job_id]) == [JobState.QUEUED]) == keep
    assert (f"aii jobs wait {job_id}" in capsys.readouterr().err) == keep


def test_a_look_up_that_is_late_is_withdrawn_with_all_its_parts(
    operations: Operations, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(json.dumps([[1.0, 0.0]] * 60))
    late = aii(stack_environment, "lookup", str(tmp_path / "a.json"), "--top", "100", "--timeout", "0.1")
    assert (late.returncode, "the question was withdrawn: ask again" in late.stderr) == (1, True), late.stderr
    assert operations.waiting(QUEUE_QUERY)[0] == 0
    assert len(operations.jobs(JobState.CANCELLED, 9)) == 2  # fifty vectors of a hundred matches each, and ten


def test_a_look_up_of_which_a_part_fails_is_withdrawn_whole(
    operations: Operations, store: ObjectStore, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(json.dumps([[1.0, 0.0]] * 150))
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(aii, stack_environment, "lookup", str(tmp_path / "a.json"), "--top", "100")
        wait_for(lambda: operations.waiting(QUEUE_QUERY)[0] == 3, "there are no three parts")
        operations.cancel(operations.jobs(JobState.QUEUED, 1)[0].job_id, store)
    assert command.result().returncode == 1
    assert operations.waiting(QUEUE_QUERY)[0] == 0
    assert len(operations.jobs(JobState.CANCELLED, 9)) == 3
