"""How a job ends that cannot go its usual way, on a real Redis and a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.connection import connect_redis
from tasks.documents import read_result
from tasks.errors import DeviceFull, StorageRefused, StorageUnavailable
from tasks.ledger.keys import job_key
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source
from tasks.names import QUEUE_ACTIVATE
from tasks.results import FailureResult, Result
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.integration.test_ledger import QUEUE, request
from tests.running import Runs
from tests.waiting import LIMIT_S, wait_for
from workers.delivery.job import Kind, Running


@pytest.fixture
def runs(settings: Settings, ledger: Ledger, store: ObjectStore) -> Runs:
    return Runs(settings, ledger, store)


def other_request() -> ActivateRequest:
    return ActivateRequest(collection="starter", source=Source(sha256="1" * 64, size=1), asset_id="other")


def ends_well(made: ActivateRequest, running: Running) -> Result:
    """Any document will do: this one says which request was worked on."""
    return FailureResult(
        task=made.task, job_id=running.job_id, code="worked", message=made.asset_id, provenance=running.provenance()
    )


def raises(error: Exception) -> Callable[[ActivateRequest, Running], Result]:
    def work(_: ActivateRequest, __: Running) -> Result:
        raise error

    return work


def submitted(runs: Runs) -> ActivateRequest:
    made = request("mine")
    runs.ledger.submit([made])
    return made


def document(runs: Runs, job_id: str) -> tuple[str, str]:
    result = read_result(runs.store, job_id)
    assert isinstance(result, FailureResult)
    return result.code, result.message


def test_a_message_that_comes_twice_takes_no_lease_from_the_thread_that_has_it(runs: Runs) -> None:
    made, seen = submitted(runs), []

    def work(made: ActivateRequest, running: Running) -> Result:
        with ThreadPoolExecutor(1) as other:
            seen.append(other.submit(runs.runner.run, kind, made.job_id, made.model_dump(mode="json")).result(LIMIT_S))
        seen.append(running.wanted())
        return ends_well(made, running)

    kind = Kind(ActivateRequest, work)
    assert runs.runner.run(kind, made.job_id, made.model_dump(mode="json")) == "failed worked"
    assert seen == ["leased", True]


@pytest.mark.parametrize("payload", [None, 5, {}, {"task": "x"}, other_request().model_dump(mode="json")])
def test_a_message_under_a_jobs_id_does_not_change_what_the_job_is(runs: Runs, payload: object) -> None:
    made = submitted(runs)
    assert runs.runner.run(Kind(ActivateRequest, ends_well), made.job_id, payload) == "failed worked"
    assert document(runs, made.job_id) == ("worked", "mine")


def test_a_job_that_only_its_message_knows_and_that_cannot_be_read_fails_with_a_document(runs: Runs) -> None:
    job_id = "ab" * 16
    assert runs.runner.run(Kind(ActivateRequest, ends_well), job_id, 5) == "failed invalid_request"
    assert document(runs, job_id)[0] == "invalid_request"
    assert runs.ledger.get(job_id).state is JobState.FAILED


def test_a_refused_message_ends_its_job_only_if_the_ledger_knows_no_better(runs: Runs) -> None:
    kinds, unknown, made = [Kind(ActivateRequest, ends_well)], "cd" * 16, submitted(runs)
    assert runs.runner.refuse(unknown, QUEUE_ACTIVATE, "It is no base64.", kinds) == "failed invalid_request"
    assert document(runs, unknown) == ("invalid_request", "It is no base64.")
    assert runs.runner.refuse(made.job_id, QUEUE_ACTIVATE, "It is no base64.", kinds) == "failed worked"


def test_a_job_of_a_task_that_this_worker_does_not_know_fails_and_says_so(runs: Runs) -> None:
    job_id = "ef" * 16
    runs.ledger.adopt(job_id, "aii.later", QUEUE_ACTIVATE, {"a": 1})
    kinds, reason = [Kind(ActivateRequest, ends_well)], "The queue activate has no jobs of the task 'aii.later'."
    assert runs.runner.refuse(job_id, QUEUE_ACTIVATE, reason, kinds) == "failed invalid_request"
    assert document(runs, job_id) == ("invalid_request", reason)


def test_while_s3_is_away_a_job_is_put_off_and_keeps_no_thread(runs: Runs) -> None:
    made = submitted(runs)
    away = Kind(ActivateRequest, raises(StorageUnavailable("S3 does not answer.")))
    for _ in range(3):
        assert runs.runner.run(away, made.job_id, made.model_dump(mode="json")) == "put off storage_unavailable"
    assert (runs.ledger.get(made.job_id).state, runs.leases.count()) == (JobState.QUEUED, 0)
    assert runs.runner.run(Kind(ActivateRequest, ends_well), made.job_id, None) == "failed worked"


@pytest.mark.parametrize("error", [StorageRefused("No."), DeviceFull("Full.")])
def test_a_job_that_is_refused_fails_with_its_code_after_some_tries(
    runs: Runs, error: StorageRefused | DeviceFull
) -> None:
    made, kind = submitted(runs), Kind(ActivateRequest, raises(error))
    ends = [runs.runner.run(kind, made.job_id, None) for _ in range(error.most_attempts or 0)]
    assert ends == [f"put off {error.code}"] * 4 + [f"failed {error.code}"]
    assert document(runs, made.job_id) == (error.code, error.message)


def test_a_job_whose_record_is_beyond_use_is_set_aside_and_comes_back_no_more(runs: Runs, settings: Settings) -> None:
    made = submitted(runs)
    with connect_redis(settings) as client:
        client.hset(job_key(made.job_id), "seq", "none")
    assert runs.runner.run(Kind(ActivateRequest, ends_well), made.job_id, None) == "set aside"
    assert (runs.letters.count(), runs.ledger.get(made.job_id).state) == (1, JobState.FAILED)
    assert runs.ledger.recovery.waiting_up_to(QUEUE, 99) == []


class Hangs:
    """Work that stays in one stage until it is told to go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, made: ActivateRequest, running: Running) -> Result:
        with running.watch.stage("decode"):
            self.begun.set()
            assert self.go_on.wait(LIMIT_S)
        running.begin_publishing()
        return ends_well(made, running)


def test_a_stage_that_takes_too_long_fails_the_job_and_its_thread_finds_that_it_lost_it(
    settings: Settings, ledger: Ledger, store: ObjectStore
) -> None:
    runs, hangs = Runs(settings, ledger, store, stage_timeout_s=0.01), Hangs()
    made = submitted(runs)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(runs.runner.run, Kind(ActivateRequest, hangs), made.job_id, None)
        wait_for(hangs.begun.is_set, "it does not begin")
        wait_for(lambda: runs.runner.deadlines.enforce() or runs.ledger.get(made.job_id).state.closed, "it never fails")
        assert document(runs, made.job_id)[0] == "deadline_exceeded"
        wait_for(lambda: runs.runner.deadlines.enforce() or runs.ended, "the process would not end")
        hangs.go_on.set()
        assert job.result(LIMIT_S) == "left"
    assert document(runs, made.job_id)[0] == "deadline_exceeded"
    assert [result.status for result in runs.seen] == ["failed"]


def test_a_job_that_takes_too_long_in_all_fails_even_in_a_stage_without_limit(runs: Runs) -> None:
    made, go_on = submitted(runs), threading.Event()

    def work(made: ActivateRequest, running: Running) -> Result:
        with running.watch.stage("device"):
            assert go_on.wait(LIMIT_S)
        running.still_ours()
        return ends_well(made, running)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(runs.runner.run, Kind(ActivateRequest, work, timeout_s=0.01), made.job_id, None)
        wait_for(lambda: runs.runner.deadlines.enforce() or runs.ledger.get(made.job_id).state.closed, "it never fails")
        go_on.set()
        assert job.result(LIMIT_S) == "left"
    assert document(runs, made.job_id)[0] == "deadline_exceeded"
