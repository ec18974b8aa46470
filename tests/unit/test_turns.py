"""How a lane's threads are divided among the clients whose jobs it takes."""

from __future__ import annotations

from collections import Counter

import pytest

from workers.delivery.turns import Turns

QUEUES = ("query", "query.1", "query.2", "query.3")


class Lane:
    """A lane of `threads` threads; time passes when it is told to."""

    def __init__(self, threads: int) -> None:
        self.taken = Counter[str]()
        self.now = 0.0
        self.turns = Turns(lambda: self.taken, lambda: threads, lambda: self.now)
        self.turns.update(QUEUES)

    def take(self, *queues: str) -> None:
        for queue in queues:
            assert queue in self.asked()
            self.turns.rotate(queue)
            self.taken[queue] += 1

    def asked(self) -> list[str]:
        return self.turns.consume(len(QUEUES))


def test_the_queue_that_gave_a_message_is_asked_last() -> None:
    lane = Lane(4)
    lane.take("query.1")
    assert lane.asked() == ["query", "query.2", "query.3", "query.1"]


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_client_that_is_alone_is_never_left_out(threads: int) -> None:
    lane = Lane(threads)
    lane.take("query.1", "query.1", "query.1", "query.1")
    assert sorted(lane.asked()) == sorted(QUEUES)


def test_while_another_client_asks_no_one_has_more_than_half_of_the_threads() -> None:
    lane = Lane(5)
    lane.take("query.2", "query.1", "query.1", "query.1")
    assert lane.turns.left_out == frozenset()
    assert "query.1" not in lane.asked()
    assert "query.2" in lane.asked()


def test_the_last_thread_is_kept_for_a_client_whose_jobs_have_just_ended() -> None:
    lane = Lane(4)
    lane.take("query.3", "query.1", "query.2")
    lane.taken["query.3"] = 0
    lane.take("query.1")
    assert sorted(lane.asked()) == ["query", "query.3"]
    lane.take("query.3")
    assert lane.turns.left_out == {"query.1", "query.2"}


def test_nothing_is_kept_for_a_client_that_has_not_asked_for_a_while() -> None:
    lane = Lane(4)
    lane.take("query.3", "query.1", "query.1")
    lane.taken["query.3"] = 0
    assert "query.1" not in lane.asked()
    assert not lane.turns.outdated()
    lane.now = 60.0
    assert lane.turns.outdated()
    assert "query.1" in lane.asked()


def test_a_wait_is_outdated_once_a_client_that_it_leaves_out_may_have_a_thread() -> None:
    lane = Lane(4)
    lane.take("query.3", "query.1", "query.1")
    assert "query.1" not in lane.asked()
    assert not lane.turns.outdated()
    lane.taken["query.1"] -= 1
    assert lane.turns.outdated()


def test_a_job_of_an_index_is_no_clients_and_takes_no_threads_from_one() -> None:
    lane = Lane(4)
    lane.turns.update(["index", "query.1", "query.2"])
    lane.taken["index"] = 1
    lane.turns.rotate("index")
    for _ in range(3):
        assert "query.1" in lane.turns.consume(3)
        lane.turns.rotate("query.1")
        lane.taken["query.1"] += 1
    lane.turns.rotate("query.2")
    assert lane.turns.consume(3) == ["query.2"]
