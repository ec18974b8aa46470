"""How those who wait for jobs hear of their ends, on a real Redis."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from producer import Producer
from tasks.connection import connect_redis
from tasks.documents import read_result
from tasks.ledger import waiting
from tasks.ledger.events import BEGINNING, EventLog, JobEvent, subject_of
from tasks.ledger.keys import EVENTS, job_key
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.ledger.waiting import Closing, closings, wait_until_closed
from tasks.messages import ActivateRequest, Source
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.photographs import crops
from tests.waiting import LIMIT_S, wait_for


def submitted(ledger: Ledger, name: str = "a") -> str:
    job = ActivateRequest(collection="starter", source=Source(sha256="0" * 64, size=1), asset_id=name)
    ledger.submit([job])
    return job.job_id


def ended(ledger: Ledger, job_id: str, state: JobState = JobState.DONE, code: str = "") -> None:
    ledger.claim(job_id, "activate", "t", "worker")
    assert ledger.close(job_id, "t", state, code)


def events(settings: Settings) -> list[JobEvent]:
    with connect_redis(settings) as client:
        return EventLog(client).read_after(BEGINNING, 100)[1]


@pytest.fixture
def by_events_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is asked once; what ends after that is told by an event, or not at all."""
    monkeypatch.setattr(waiting, "_FIRST_CHECK_S", 100 * LIMIT_S)


def test_the_end_of_a_job_is_a_cloud_event(ledger: Ledger, settings: Settings) -> None:
    job_id = submitted(ledger)
    ledger.claim(job_id, "activate", "t", "worker")
    ledger.commit(job_id, "t", ("{}", ""), None, None, 0)
    ledger.close(job_id, "t", JobState.FAILED, "truncated", "It is cut off.")
    (event,) = events(settings)
    said = event.cloud_event()
    assert said.pop("time").startswith("20")
    assert said == {
        "specversion": "1.0",
        "id": f"{subject_of(job_id)}-1-failed",
        "source": "/aii/ledger",
        "type": "aii.job.failed",
        "subject": subject_of(job_id),
        "datacontenttype": "application/json",
        "data": {"state": "failed", "task": "aii.activate", "document": 1, "error_code": "truncated"},
    }


def test_an_event_reveals_neither_the_job_nor_the_asset(ledger: Ledger, settings: Settings) -> None:
    job_id = submitted(ledger, "secret asset")
    ended(ledger, job_id)
    with connect_redis(settings) as client:
        said = str(client.xrange(EVENTS))
    assert subject_of(job_id) in said
    assert job_id not in said
    assert "secret asset" not in said


@pytest.mark.usefixtures("by_events_only")
def test_an_end_is_heard_of_without_asking_again(ledger: Ledger) -> None:
    job_ids = [submitted(ledger, name) for name in "abc"]
    heard: list[tuple[str, JobState | None]] = []
    ended(ledger, job_ids[0])
    for closed in wait_until_closed(ledger, job_ids, LIMIT_S):
        heard.append(closed)
        if len(heard) < len(job_ids):
            ended(ledger, job_ids[len(heard)])
    assert heard == [(job_id, JobState.DONE) for job_id in job_ids]


@pytest.mark.usefixtures("by_events_only")
def test_all_who_wait_in_a_process_share_one_reader(ledger: Ledger) -> None:
    job_ids = [submitted(ledger, str(i)) for i in range(20)]
    wait = lambda job_id: list(wait_until_closed(ledger, [job_id], LIMIT_S))  # noqa: E731
    with ThreadPoolExecutor(2 * len(job_ids)) as pool:
        heard = [pool.submit(wait, job_id) for job_id in job_ids * 2]  # two wait for each job
        assert sum(thread.name == "job-events" for thread in threading.enumerate()) <= 1
        for job_id in job_ids:
            ended(ledger, job_id)
        assert [future.result() for future in heard] == [[(job_id, JobState.DONE)] for job_id in job_ids * 2]


@pytest.mark.usefixtures("by_events_only")
def test_a_cancelled_job_is_announced_once_its_document_can_be_read(
    ledger: Ledger, settings: Settings, store: ObjectStore
) -> None:
    job_id = submitted(ledger)
    Operations.connect(settings).cancel(job_id, store)
    (event,) = events(settings)
    assert (event.state, event.error_code) == (JobState.CANCELLED, "cancelled")
    assert read_result(store, job_id, event.document).status == "failed"


def test_an_end_without_an_event_is_found_by_asking(ledger: Ledger, settings: Settings) -> None:
    """As of a worker of an older version, or one whose event was trimmed."""
    job_ids = [submitted(ledger, name) for name in "ab"]
    waited = wait_until_closed(ledger, job_ids, LIMIT_S)
    ended(ledger, job_ids[0])
    assert next(waited) == (job_ids[0], JobState.DONE)
    with connect_redis(settings) as client:
        client.hset(job_key(job_ids[1]), "state", "done")
    assert list(waited) == [(job_ids[1], JobState.DONE)]


def test_the_end_of_an_earlier_run_is_not_taken_for_that_of_a_job_that_was_opened_again(
    ledger: Ledger, settings: Settings
) -> None:
    job_id = submitted(ledger)
    ended(ledger, job_id, JobState.FAILED, "truncated")
    submitted(ledger)
    pending = waiting._Pending([job_id])
    assert list(pending.asked_all(ledger)) == []
    (earlier,) = events(settings)
    assert list(pending.told(earlier)) == []
    ended(ledger, job_id)
    assert [closing.state for closing in pending.told(events(settings)[-1])] == [JobState.DONE]


def test_many_jobs_that_wait_behind_one_that_does_not_end_are_all_found(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without events, and more than are asked for at once."""
    monkeypatch.setattr(waiting, "_WINDOW", 2)
    monkeypatch.setattr(waiting, "_FIRST_CHECK_S", 0.01)
    job_ids = [submitted(ledger, str(i)) for i in range(7)]
    waited = wait_until_closed(ledger, job_ids, LIMIT_S)
    with connect_redis(settings) as client:
        ended(ledger, job_ids[2])
        assert next(waited) == (job_ids[2], JobState.DONE)
        for job_id in job_ids[3:]:
            client.hset(job_key(job_id), "state", "done")
        assert {next(waited)[0] for _ in job_ids[3:]} == set(job_ids[3:])
        waited.close()


def test_a_job_that_the_ledger_forgets_while_it_is_waited_for_is_lost(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_FIRST_CHECK_S", 0.01)
    first, other = submitted(ledger, "first"), submitted(ledger, "other")
    waited = closings(ledger, [first, other, uuid.uuid4().hex], LIMIT_S)
    assert (unknown := next(waited)).state is None
    assert not unknown.lost
    with connect_redis(settings) as client:
        client.delete(job_key(first))
    assert next(waited) == Closing(first, None, lost=True)
    waited.close()


def test_a_job_that_was_forgotten_is_answered_for_by_its_document(
    producer: Producer, settings: Settings, shared_worker: object
) -> None:
    image = crops(9, side=96)[8]
    job = producer.activate(image, asset_id="forgotten")
    result = job.wait(LIMIT_S)
    with connect_redis(settings) as client:
        client.delete(job_key(job.job_id))
        assert job.wait(LIMIT_S) == result
        again = producer.activate(image, asset_id="forgotten")
        assert again.wait(LIMIT_S) == result
        assert (again.new, again.job_id) == (True, job.job_id)
        assert sum(fields["asset"] == "forgotten" for _, fields in client.xrange("aii:journal:starter")) == 1


def test_a_record_of_another_version_is_passed_over(ledger: Ledger, settings: Settings) -> None:
    with connect_redis(settings) as client:
        client.xadd(EVENTS, {"data": "no JSON"})
    ended(ledger, submitted(ledger))
    assert [event.state for event in events(settings)] == [JobState.DONE]


def test_the_reader_ends_with_its_ledger(settings: Settings) -> None:
    ledger = Ledger.connect(settings)
    assert list(wait_until_closed(ledger, [submitted(ledger)], 0)) == []
    reader = ledger.completions._thread
    assert reader is not None
    ledger.disconnect()
    wait_for(lambda: not reader.is_alive(), "the thread goes on")
