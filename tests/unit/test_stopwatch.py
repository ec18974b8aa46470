"""The stopwatch of a job."""

from __future__ import annotations

import pytest

from workers.monitoring.stopwatch import Stopwatch


def test_stages_are_listed_in_the_order_in_which_they_first_ran_and_the_total_last() -> None:
    watch = Stopwatch()
    for stage in ("fetch", "decode", "fetch"):
        with watch.stage(stage):  # type: ignore[arg-type]
            pass
    assert list(watch.timings_ms()) == ["fetch", "decode", "total"]


def test_times_of_one_stage_add_up() -> None:
    watch = Stopwatch()
    watch.add("optimise", 10.0)
    watch.add("optimise", 2.5)
    assert watch.timings_ms()["optimise"] == 12.5


def test_a_stage_that_fails_is_timed_and_its_error_passes() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.stage("decode"):
        raise KeyError
    assert watch.timings_ms()["decode"] >= 0


def test_the_total_is_at_least_its_stages() -> None:
    watch = Stopwatch()
    with watch.stage("decode"):
        sum(range(1_000))
    timings = watch.timings_ms()
    assert timings["total"] >= timings["decode"] > 0
