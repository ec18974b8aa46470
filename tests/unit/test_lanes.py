"""Which lane serves which queues, and how a lane waits for messages."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from tasks.connection import connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.messages import ActivateRequest, ExtractRequest
from tasks.names import QUEUE_ACTIVATE, QUEUE_INDEX, QUEUE_QUERY, QUEUES
from tasks.settings import Settings
from tasks.shares import queues_of
from tests.waiting import LIMIT_S
from workers.delivery import lanes as lanes_module
from workers.delivery.envelope import REFUSED_TASK
from workers.delivery.job import Kind
from workers.delivery.job_runner import JobRunner
from workers.delivery.lanes import ShortPollConnection, lanes_for, worker_app
from workers.delivery.pulse import Pulse
from workers.delivery.set_aside import SetAside
from workers.device.clients import client_now

SETTINGS = Settings(activate_threads=7, query_threads=3)
QUERY, ACTIVATE = queues_of(QUEUE_QUERY), queues_of(QUEUE_ACTIVATE)  # with their share queues


@pytest.mark.parametrize(
    ("queues", "lanes"),
    [
        (QUEUES, [("query", QUERY, 3), ("activate", (*ACTIVATE, QUEUE_INDEX), 7)]),
        ((QUEUE_QUERY,), [("query", QUERY, 3)]),
        ((QUEUE_INDEX,), [("activate", (QUEUE_INDEX,), 7)]),
        ((QUEUE_ACTIVATE, QUEUE_QUERY), [("query", QUERY, 3), ("activate", ACTIVATE, 7)]),
    ],
)
def test_each_lane_serves_its_queues_with_its_threads(
    queues: tuple[str, ...], lanes: list[tuple[str, tuple[str, ...], int]]
) -> None:
    assert [(lane.name, lane.queues, lane.threads) for lane in lanes_for(queues, SETTINGS)] == lanes


class Channel:
    """As far as Celery's prefetching shows: `held` messages are at work, of `most`."""

    def __init__(self, held: int, most: int) -> None:
        self.qos = self
        self.prefetch_count = most
        self._free = most - held

    def can_consume_max_estimate(self) -> int:
        return self._free

    def reconsider(self) -> bool:
        return False


class Connection:
    def __init__(self) -> None:
        self.waits: list[float] = []

    def drain_events(self, timeout: float) -> None:
        self.waits.append(timeout)


def test_a_lane_at_work_waits_for_messages_only_briefly_so_that_finished_jobs_are_acknowledged() -> None:
    waits = []
    for held in (0, 1, 4):
        connection = Connection()
        ShortPollConnection(connection, Channel(held, 4), None).drain_events(timeout=2.0)
        waits += connection.waits
    assert waits[2] < waits[1] < waits[0] < 2.0


def test_a_lane_whose_threads_are_all_at_work_goes_on_when_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.delivery.lanes._LONGEST_WAIT_S", LIMIT_S)
    channel, connection, freed = Channel(4, 4), Connection(), threading.Event()
    waiting = ShortPollConnection(connection, channel, None, freed=freed)
    lane = threading.Thread(target=waiting.drain_events, args=(LIMIT_S,), daemon=True)
    lane.start()
    while lane.is_alive():
        freed.set()
        lane.join(0.01)
    assert connection.waits[0] < 1


class Runner:
    """Notes for which client each job runs."""

    def __init__(self) -> None:
        self.clients: list[str | None] = []

    def run(self, *_: object) -> str:
        self.clients.append(client_now())
        return "done"

    refuse = run


def nothing(*_: object) -> Any:
    raise AssertionError("no job is done here")


@pytest.mark.parametrize(
    ("task", "queue", "client"),
    [
        (ActivateRequest.task_name(), "activate.3", "3"),
        (ActivateRequest.task_name(), "activate", ""),
        (ExtractRequest.task_name(), "index", None),
        (REFUSED_TASK, "query.12", "12"),
        (REFUSED_TASK, "index", None),
    ],
)
def test_the_queue_of_a_message_says_for_which_client_its_job_runs(
    monkeypatch: pytest.MonkeyPatch, task: str, queue: str, client: str | None
) -> None:
    runner = Runner()
    monkeypatch.setattr(
        lanes_module, "_prepare_thread", lambda **_: None
    )  # it is pytest's here, and may keep its priority
    with connect_redis(SETTINGS) as redis:  # which connects when it is used: here, never
        kinds = [Kind(ActivateRequest, nothing, timeout_s=1), Kind(ExtractRequest, nothing, timeout_s=1)]
        set_aside, pulse = SetAside(DeadLetters(redis)), Pulse(redis.ping)
        app = worker_app(SETTINGS, cast(JobRunner, runner), kinds, set_aside, pulse)
        app.tasks[task].apply(args=[{}], routing_key=queue).get()
    assert runner.clients == [client]
