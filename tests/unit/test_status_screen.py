"""`aii status --watch` fits its terminal, whatever that has to show."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from producer.status import Status
from producer.status_screen import SORTS, Screen, View
from tasks.monitoring.overview import FailureState, Overview, PublishedQuality, QueueState, StageState, WorkerSpeed
from tasks.monitoring.presence import WorkerNote
from tasks.monitoring.problems import problem

SIZES = [(80, 24), (200, 60), (40, 10), (300, 5)]


def note(name: str, memory: int) -> WorkerNote:
    return WorkerNote(
        worker=name, pid=1, device="cpu", extractor="compact", queues=["query"], batch_images=4, memory_bytes=memory,
        device_memory_bytes=None, collections=[], device_busy=0.5,
    )  # fmt: skip


def speed(name: str) -> WorkerSpeed:
    return WorkerSpeed(worker=name, device="cpu", images_per_s=1, queries_per_s=1, device_ms=3)


def state(workers: int = 30, problems: int = 2) -> Status:
    """More than any small terminal has lines for, in words longer than it is wide."""
    notes = [note(f"worker-{n:02}", 2**20 * (100 - n)) for n in range(workers)]
    stages = [
        StageState(task="aii.activate", stage=f"s{n}", count=1, mean_ms=1, p50_ms=1, p95_ms=1, p99_ms=1)
        for n in range(12)
    ]
    view = Overview(
        at=0.0, window_s=300, images_per_s=1.5, queries_per_s=2.5, comparisons=[], stages=stages,
        quality=PublishedQuality(images=0, verified=0, psnr_median_db=None, psnr_lowest_db=None),
        queues=[QueueState(queue="query", waiting=7, oldest_age_s=2.0, drain_s=None)], running=1, counts={},
        workers=notes, collections=[], latest=[], outdated={}, failed=0, failed_jobs=[], history=[],
        failures=[FailureState(code="truncated", count=1, message="cut off " * 40, job_id="0", at=0.0)],
        speeds=[speed(n.worker) for n in notes],
        problems=[problem("no_worker", f"Problem {n}", "long words " * 30) for n in range(problems)],
    )  # fmt: skip
    return Status(redis="r", s3="s", s3_problem=None, flower=None, overview=view, results=[])


def drawn(width: int, height: int, shown: Status | None, view: View | None = None, trouble: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    lines = Screen(console, view or View()).draw(shown, trouble)
    return ["".join(segment.text for segment in line) for line in lines]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("shown", [state(), state(0, 0), state(problems=40), None])
def test_a_screen_has_as_many_lines_as_the_terminal_and_none_is_longer(
    width: int, height: int, shown: Status | None
) -> None:
    lines = drawn(width, height, shown)
    assert len(lines) == height
    assert {len(line) for line in lines} == {width}


def test_what_is_wrong_and_how_fast_it_goes_stay_on_top_however_far_one_scrolls() -> None:
    for offset in (0, 5, 10_000):
        lines = drawn(80, 24, state(), View(offset=offset))
        assert "Problem 0" in lines[0]
        assert "1.50 images/s" in "".join(lines[:4])
        assert "q quit" in lines[-1]


def test_the_last_line_can_be_scrolled_to() -> None:
    view = View()
    first = drawn(80, 24, state(), view)
    assert "more lines below" in first[-1]
    while "more lines below" in (lines := drawn(80, 24, state(), view))[-1]:
        view.press(" ", 10)
    assert any("s11" in line for line in lines)
    view.press("g", 10)
    assert drawn(80, 24, state(), view) == first


def test_workers_are_sorted_by_what_is_asked() -> None:
    view = View()
    grows = state(3)
    notes = [note(f"worker-{n:02}", 2**20 * (1 + n)) for n in range(3)]
    grows = dataclasses.replace(grows, overview=grows.overview.model_copy(update={"workers": notes}))

    def shown() -> list[str]:
        return [line[:9] for line in drawn(80, 60, grows, view) if line.startswith("worker-")]

    assert shown() == ["worker-00", "worker-01", "worker-02"]
    while view.sort != "memory":
        view.press("s", 1)
    assert shown() == ["worker-02", "worker-01", "worker-00"]
    view.press("s", 1)
    assert view.sort == next(iter(SORTS))


def test_a_service_that_is_silent_is_said_above_the_last_figures() -> None:
    lines = drawn(80, 24, state(), trouble="Redis or S3 has not answered for 9 s")
    assert "has not answered for 9 s" in lines[0]
    assert "Problem 0" in lines[1]
    assert "has not answered" in drawn(80, 24, None, trouble="Redis or S3 has not answered for 9 s")[0]
