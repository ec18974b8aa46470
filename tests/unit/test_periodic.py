"""Functions that are called again and again in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from tasks.errors import NotReady, RedisUnavailable
from tasks.periodic import PeriodicThread
from tests.waiting import wait_for

NEVER_S = 3_600.0  # a pause that only the end of the test could outlast


def fails_first(error: Exception, calls: list[int]) -> Callable[[], None]:
    def call() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise error

    return call


def test_the_function_is_called_again_and_again_until_the_stop() -> None:
    calls: list[int] = []
    thread = PeriodicThread("counter", 0.001, lambda: calls.append(0))
    thread.start()
    wait_for(lambda: len(calls) >= 3, "it was not called again")
    thread.stop()
    assert not thread.alive


def test_the_first_call_comes_after_one_period_or_at_once() -> None:
    calls: list[str] = []
    later = PeriodicThread("later", NEVER_S, lambda: calls.append("later"))
    now = PeriodicThread("now", NEVER_S, lambda: calls.append("now"), at_once=True)
    for thread in (later, now):
        thread.start()
    wait_for(lambda: calls, "it was not called")
    for thread in (later, now):
        thread.stop()
    assert calls == ["now"]


def test_a_stop_ends_the_longest_pause() -> None:
    thread = PeriodicThread("sleeper", NEVER_S, lambda: None)
    thread.start()
    thread.stop()  # would hang until the limit of the test
    assert not thread.alive


def test_a_stop_waits_for_a_call_that_is_running_but_no_longer_than_it_is_told() -> None:
    entered, leave = threading.Event(), threading.Event()

    def call() -> None:
        entered.set()
        leave.wait()

    thread = PeriodicThread("busy", NEVER_S, call, at_once=True)
    thread.start()
    entered.wait()
    thread.stop(timeout_s=0.01)
    assert thread.alive
    leave.set()
    thread.stop()
    assert not thread.alive


@pytest.mark.parametrize(
    ("error", "level", "traceback"),
    [(RedisUnavailable("Redis is away."), logging.WARNING, False), (ValueError("a mistake"), logging.ERROR, True)],
)
def test_every_exception_is_logged_and_survived(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int, traceback: bool
) -> None:
    calls: list[int] = []
    thread = PeriodicThread("failing", 0.001, fails_first(error, calls))
    thread.start()
    wait_for(lambda: len(calls) >= 2, "the thread did not survive")
    thread.check()
    thread.stop()
    (record,) = (r for r in caplog.records if r.name == "tasks.periodic")
    assert (record.levelno, bool(record.exc_info)) == (level, traceback)
    assert str(error) in caplog.text


def test_starting_twice_starts_one_thread() -> None:
    calls: list[int] = []
    thread = PeriodicThread("once", NEVER_S, lambda: calls.append(threading.get_ident()), at_once=True)
    thread.start()
    thread.start()
    wait_for(lambda: calls, "it was not called")
    thread.stop()
    thread.start()
    assert len(calls) == 1


def test_a_thread_that_does_not_run_is_not_ready() -> None:
    thread = PeriodicThread("renewal", NEVER_S, lambda: None)
    assert thread.last_run_s is None
    with pytest.raises(NotReady, match="renewal"):
        thread.check()
    thread.start()
    thread.check()
    thread.stop()
    with pytest.raises(NotReady, match="renewal"):
        thread.check()


def test_a_thread_whose_call_does_not_come_back_is_stuck() -> None:
    leave = threading.Event()
    thread = PeriodicThread("hanging", NEVER_S, leave.wait, at_once=True, stale_after_s=0.0)
    thread.start()
    wait_for(lambda: (thread.last_run_s or 0) > 0, "no time went by")
    with pytest.raises(NotReady, match="stuck"):
        thread.check()
    leave.set()
    thread.stop()
