"""Finding jobs on the page of jobs, on a real Redis and a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("flower")

from deploy.flower import job_index
from deploy.flower.job_index import JobIndex, Wanted
from deploy.flower.job_search import search_jobs
from tasks.connection import connect_redis
from tasks.ledger.keys import job_key
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source
from tasks.settings import Settings
from tasks.storage import ObjectStore


class Searched:
    """A ledger and what is found in it."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.ledger = ledger
        self.client = connect_redis(settings)
        self.operations = Operations.connect(settings)
        self.index = JobIndex(self.client, self.operations)
        self._store = ObjectStore.connect(settings)
        self._submitted = 0

    def found(self, **wanted: object) -> list[str]:
        records = search_jobs(self.index, self.operations, self._store, [], Wanted(**wanted)).jobs  # type: ignore[arg-type]
        return [record.job_id for record in records]

    def _next_ms(self) -> None:
        """No two jobs are submitted or end in one millisecond: those have no order."""
        now_ms = before_ms = self._now_ms()
        while now_ms == before_ms:
            now_ms = self._now_ms()

    def _now_ms(self) -> int:
        seconds, micros = self.client.time()
        return int(1000 * seconds + micros // 1000)

    def submit(self, name: str = "", collection: str = "starter") -> str:
        self._next_ms()
        self._submitted += 1
        source = Source(sha256=f"{self._submitted:064x}", size=1)
        request = ActivateRequest(collection=collection, source=source, asset_id=f"asset-{self._submitted}", name=name)
        self.ledger.submit([request])
        return request.job_id

    def claim(self, job_id: str, worker: str = "w-1") -> str:
        self.ledger.claim(job_id, "activate", f"token-{job_id}", worker)
        return job_id

    def end(self, job_id: str, state: JobState = JobState.DONE, code: str = "") -> str:
        self._next_ms()
        self.ledger.close(job_id, f"token-{job_id}", state, code, code)
        return job_id


@pytest.fixture
def searched(settings: Settings, ledger: Ledger) -> Iterator[Searched]:
    searched = Searched(settings, ledger)
    yield searched
    searched.client.close()


def test_jobs_are_found_by_every_word_and_by_state_worker_collection_and_time(searched: Searched) -> None:
    good = searched.end(searched.claim(searched.submit("Holiday.jpg", "other"), "w-7"))
    bad = searched.end(searched.claim(searched.submit()), JobState.FAILED, "truncated")
    running, waiting = searched.claim(searched.submit()), searched.submit()
    assert searched.found() == [waiting, running, bad, good]
    assert searched.found(text="holiday") == [good]
    assert searched.found(text="asset-1") == [good]
    assert searched.found(text=bad[:9]) == [bad]
    assert searched.found(text="truncated") == [bad]
    assert searched.found(text="w-7") == searched.found(worker="w-7") == [good]
    assert searched.found(worker="w-1") == [running, bad]
    assert searched.found(text="activat", state="queued") == [waiting]
    assert searched.found(collection="other") == [good]
    assert searched.found(text="asset", collection="starter", state="running") == [running]
    assert searched.found(text="asset-1", worker="w-1") == []
    ended = searched.operations.job(bad).finished_at
    assert ended is not None
    assert bad in searched.found(until=ended)
    assert good not in searched.found(since=ended + 0.001)
    assert searched.found(until=ended - 3600) == []


def test_what_is_found_is_as_the_ledger_has_it_now(searched: Searched) -> None:
    first, second = (searched.end(searched.claim(searched.submit()), JobState.FAILED, "not_found") for _ in range(2))
    assert searched.found(state="failed") == [second, first]
    searched.operations.retry(first)
    assert searched.found(state="failed", text="asset") == [second]
    assert searched.found(state="queued", text="asset") == [first]
    searched.claim(first)
    assert searched.found(state="queued") == []
    searched.end(first, JobState.FAILED, "truncated")
    assert searched.found(text="truncated") == [first]
    assert searched.found(state="failed") == [first, second]
    searched.client.delete(job_key(second))
    assert searched.found() == [first]
    searched.client.flushdb()
    assert searched.found() == []


def test_a_job_that_is_put_off_is_found_though_newer_ones_wait(searched: Searched) -> None:
    old, newer = searched.submit("old.jpg"), searched.submit("newer.jpg")
    searched.claim(old)
    assert searched.found(state="queued") == [newer]
    assert searched.ledger.postpone(old, "activate", f"token-{old}", None)
    searched.index.refresh()
    assert searched.found(state="queued") == [newer, old]


def test_the_newest_of_more_jobs_than_are_remembered_are_found(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_index, "MOST", 3)
    jobs = [searched.submit() for _ in range(5)]
    assert searched.found() == jobs[:1:-1]
    jobs += [searched.submit() for _ in range(2)]
    assert searched.found(text="asset") == jobs[:3:-1]


def test_a_job_that_waits_in_a_share_queue_is_found(searched: Searched) -> None:
    request = ActivateRequest(collection="starter", source=Source(sha256="1" * 64, size=1), asset_id="shared")
    searched.ledger.submit([request], client="newsroom")
    assert searched.found(text="shared") == [request.job_id]
