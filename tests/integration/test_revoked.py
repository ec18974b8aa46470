"""What Celery's command `revoke` does to jobs, as the lanes of a worker call it."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from celery.worker import state
from celery.worker.control import Panel

from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.integration.test_ledger import claim, request
from tests.waiting import wait_for
from workers.delivery.revoked import Revocations


@pytest.fixture
def commands(settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Those of the remote control, with ours among them."""
    monkeypatch.setattr(Panel, "data", dict(Panel.data))
    Revocations(Operations.connect(settings), store).replace_celerys()
    return dict(Panel.data)


def cancelling_threads() -> int:
    return sum(thread.name == "cancel-revoked" for thread in threading.enumerate())


def test_only_queued_jobs_are_cancelled_and_nothing_of_them_is_remembered(
    commands: dict[str, Any], ledger: Ledger
) -> None:
    running, queued = request(uuid.uuid4().hex), request(uuid.uuid4().hex)
    ledger.submit([running, queued])
    claim(ledger, running.job_id, "token")
    ids = [uuid.uuid4().hex, running.job_id, queued.job_id, queued.job_id]
    assert "ok" in commands["revoke"](None, task_id=ids, terminate=True, signal="KILL")
    wait_for(lambda: ledger.get(queued.job_id).state is JobState.CANCELLED, "it is not cancelled")
    assert ledger.get(running.job_id).state is JobState.RUNNING  # its turn was before
    assert not state.revoked


def test_many_are_cancelled_by_one_thread(commands: dict[str, Any], ledger: Ledger) -> None:
    jobs = [request(uuid.uuid4().hex) for _ in range(20)]
    ledger.submit(jobs)
    before = cancelling_threads()
    for job in jobs:
        commands["revoke"](None, task_id=job.job_id)
    assert cancelling_threads() == before
    ids = [job.job_id for job in jobs]
    wait_for(lambda: set(ledger.states(ids)) == {JobState.CANCELLED}, "they are not cancelled")
