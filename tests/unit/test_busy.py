"""The share of the time in which a device computes."""

from __future__ import annotations

import pytest

from workers.device.busy import BusyTime


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_batches_beside_and_within_each_other_count_once() -> None:
    clock = Clock()
    busy = BusyTime(clock)
    with busy.batch():
        clock.now += 1
        with busy.batch():
            clock.now += 2
        clock.now += 1
    clock.now += 4
    assert busy.share() == pytest.approx(0.5)


def test_a_batch_that_still_runs_counts_and_each_share_is_since_the_last() -> None:
    clock = Clock()
    busy = BusyTime(clock)
    clock.now += 5
    with busy.batch():
        clock.now += 5
        assert busy.share() == pytest.approx(0.5)
        clock.now += 2
        assert busy.share() == pytest.approx(1.0)
    clock.now += 3
    assert busy.share() == 0.0
    assert busy.share() == 0.0
