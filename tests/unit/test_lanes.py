"""Which lane serves which queues, and how a lane waits for messages."""

from __future__ import annotations

import threading

import pytest

from tasks.names import QUEUE_ACTIVATE, QUEUE_INDEX, QUEUE_QUERY, QUEUES
from tasks.settings import Settings
from tasks.shares import queues_of
from tests.waiting import LIMIT_S
from workers.delivery.lanes import ShortPollConnection, lanes_for

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
