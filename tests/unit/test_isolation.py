"""Which jobs run beside each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from tasks.errors import WorkerStopping
from tests.waiting import LIMIT_S, wait_for
from workers.delivery.isolation import Isolation


class Job:
    """Enters with `how`, and stays until it is told to leave."""

    def __init__(self, pool: ThreadPoolExecutor, how: Callable[[], AbstractContextManager[None]]) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        self._how = how
        self.future: Future[None] = pool.submit(self._run)

    def _run(self) -> None:
        with self._how():
            self.inside.set()
            assert self.leave.wait(LIMIT_S)


def end(*jobs: Job) -> None:
    for job in jobs:
        job.leave.set()
        job.future.result(LIMIT_S)


def test_jobs_share_a_process_and_a_suspect_waits_until_it_is_empty() -> None:
    isolation = Isolation()
    with ThreadPoolExecutor(3) as pool:
        one, two = Job(pool, isolation.shared), Job(pool, isolation.shared)
        wait_for(lambda: one.inside.is_set() and two.inside.is_set(), "they do not run beside each other")
        suspect = Job(pool, isolation.alone)
        end(one)
        assert not suspect.inside.wait(0.05)
        end(two)
        wait_for(suspect.inside.is_set, "the suspect does not run")
        end(suspect)


def test_no_job_gets_in_while_a_suspect_runs_or_waits_and_suspects_run_one_after_the_other() -> None:
    isolation = Isolation()
    with ThreadPoolExecutor(4) as pool:
        first, second = Job(pool, isolation.alone), Job(pool, isolation.alone)
        wait_for(lambda: first.inside.is_set() or second.inside.is_set(), "no suspect runs")
        other = Job(pool, isolation.shared)
        running, waiting = (first, second) if first.inside.is_set() else (second, first)
        assert not waiting.inside.wait(0.05)
        assert not other.inside.is_set()
        end(running)
        wait_for(waiting.inside.is_set, "the second suspect does not run")
        assert not other.inside.wait(0.05)
        end(waiting)
        wait_for(other.inside.is_set, "nothing runs after the suspects")
        end(other)


def test_a_stop_ends_the_waiting_but_not_what_runs() -> None:
    isolation = Isolation()
    with ThreadPoolExecutor(2) as pool:
        running = Job(pool, isolation.shared)
        wait_for(running.inside.is_set, "it does not run")
        suspect = Job(pool, isolation.alone)
        isolation.stop()
        assert isinstance(suspect.future.exception(LIMIT_S), WorkerStopping)
        end(running)


def test_an_error_inside_lets_the_next_one_in() -> None:
    isolation = Isolation()
    for how in (isolation.alone, isolation.shared):
        with pytest.raises(KeyError), how():
            raise KeyError
    with isolation.alone():
        pass
