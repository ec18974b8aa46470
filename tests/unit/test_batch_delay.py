"""How long calls of the ledger wait for those of other jobs: not at all where there may be none."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tasks.ledger.batch_delay import BatchDelay

LONG_S = 60.0  # only guards against hanging


@contextmanager
def others_at_work(batch_delay: BatchDelay, count: int) -> Iterator[None]:
    """Threads of as many other jobs, until the end of the block."""
    begun, end = threading.Barrier(count + 1), threading.Event()

    def work() -> None:
        with batch_delay.job():
            begun.wait(LONG_S)
            end.wait(LONG_S)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    begun.wait(LONG_S)
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_a_call_among_many_jobs_waits_for_a_share_of_a_job_and_never_for_long() -> None:
    now_s = 0.0
    batch_delay = BatchDelay(lambda: now_s)
    with others_at_work(batch_delay, 3), batch_delay.job():
        assert batch_delay.max_s(0.1) == 0
        now_s = 1.0
        assert batch_delay.max_s(0.1) == pytest.approx(0.1)
        now_s = 1_000.0
        assert batch_delay.max_s(0.1) == 0.25


def test_a_job_that_has_just_begun_is_taken_for_one_like_the_others_before() -> None:
    now_s = 0.0
    batch_delay = BatchDelay(lambda: now_s)
    for _ in range(50):
        with batch_delay.job():
            now_s += 1
    with others_at_work(batch_delay, 3), batch_delay.job():
        assert batch_delay.max_s(0.1) == pytest.approx(0.1, rel=0.01)


def test_a_forked_child_has_none_of_its_parents_jobs() -> None:
    now_s = 0.0
    batch_delay = BatchDelay(lambda: now_s)
    with others_at_work(batch_delay, 4), batch_delay.job():
        now_s = 1.0
        child = os.fork()
        if child == 0:
            waits = True
            try:
                outside = batch_delay.max_s(0.1)
                with batch_delay.job():
                    waits = outside + batch_delay.max_s(0.1) > 0
            finally:
                os._exit(waits)
        assert os.waitpid(child, 0)[1] == 0
        assert batch_delay.max_s(0.1) > 0


def test_no_call_waits_among_few_jobs_or_outside_of_one() -> None:
    now_s = 0.0
    batch_delay = BatchDelay(lambda: now_s)
    with others_at_work(batch_delay, 2), batch_delay.job():
        now_s = 1.0
        assert batch_delay.max_s(0.1) == 0
    with others_at_work(batch_delay, 4):
        now_s = 2.0
        assert batch_delay.max_s(0.1) == 0
