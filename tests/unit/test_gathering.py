"""Calls of several threads made as one: each gets its own answer, and none waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tasks.errors import BadInput, RedisUnavailable
from tasks.ledger.gathering import Gathering
from tests.waiting import wait_for

LONG_S = 60.0  # only guards against hanging


class Work:
    """Doubles numbers; 13 cannot be, and with 99 a service is away."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        if 13 in numbers:
            raise BadInput("13")
        if 99 in numbers:
            raise RedisUnavailable("away")
        return [2 * number for number in numbers]


def outcome(gathering: Gathering[int, int], number: int) -> int | str:
    try:
        return gathering(number)
    except (BadInput, RedisUnavailable) as error:
        return error.code
    except KeyboardInterrupt:
        return "interrupted"


def at_once(gathering: Gathering[int, int], numbers: list[int]) -> list[int | str]:
    """The answers to calls of as many threads, which meet before each of two rounds: in the second they know of each
    other."""
    meet = threading.Barrier(len(numbers))

    def twice(number: int) -> int | str:
        meet.wait(LONG_S)
        gathering(0)
        meet.wait(LONG_S)
        return outcome(gathering, number)

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(twice, numbers))


def test_a_thread_that_calls_alone_waits_for_no_other() -> None:
    work = Work()
    gathering = Gathering(work)
    assert [gathering(number) for number in range(3)] == [0, 2, 4]
    assert work.calls == [[0], [1], [2]]


def test_threads_that_call_at_once_share_a_call_and_each_has_its_own_answer() -> None:
    work = Work()
    assert at_once(Gathering(work), [1, 2, 3, 4]) == [2, 4, 6, 8]

    begun, may_end = threading.Event(), threading.Event()

    def slow(numbers: Sequence[int]) -> list[int]:
        begun.set()
        assert may_end.wait(LONG_S)
        return work(numbers)

    gathering, work.calls = Gathering(slow), []
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(gathering, 0)
        assert begun.wait(LONG_S)
        others = [pool.submit(gathering, number) for number in (1, 2, 3)]
        wait_for(lambda: len(gathering._next.items if gathering._next else []) == 3, "they do not come together")
        may_end.set()
        assert [one.result(LONG_S) for one in (first, *others)] == [0, 2, 4, 6]
    assert [sorted(call) for call in work.calls] == [[0], [1, 2, 3]]


def test_what_one_item_does_wrong_costs_no_other_its_answer() -> None:
    assert at_once(Gathering(Work()), [1, 13, 3]) == [2, "bad_input", 6]


def test_a_service_that_is_away_is_told_to_all_that_asked_and_not_asked_again() -> None:
    work = Work()
    gathering = Gathering(work)
    assert outcome(gathering, 99) == "redis_unavailable"
    assert work.calls == [[99]]


def test_those_that_waited_for_an_interrupted_thread_call_by_themselves() -> None:
    work, first = Work(), threading.Lock()

    def interrupted_once(numbers: Sequence[int]) -> list[int]:
        if any(numbers) and first.acquire(blocking=False):
            raise KeyboardInterrupt
        return work(numbers)

    answers = at_once(Gathering(interrupted_once), [1, 2, 3])
    assert answers.count("interrupted") == 1
    assert all(answer in ("interrupted", 2 * number) for number, answer in zip([1, 2, 3], answers, strict=True))


def test_a_call_that_may_be_delayed_is_made_with_the_next_one_that_may_not() -> None:
    work = Work()
    gathering = Gathering(work)
    with ThreadPoolExecutor(1) as pool:
        delayed = pool.submit(gathering, 1, LONG_S)
        wait_for(lambda: gathering._next is not None, "the call does not wait")
        assert gathering(2) == 4
        assert delayed.result(LONG_S) == 2
    assert work.calls == [[1, 2]]


def test_a_call_for_which_no_other_comes_is_made_when_its_time_is_over() -> None:
    work = Work()
    assert Gathering(work)(1, 0.001) == 2
    assert work.calls == [[1]]
