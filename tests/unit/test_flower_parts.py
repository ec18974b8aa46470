"""What the dashboard's pages are made of, as far as that needs no server."""

from __future__ import annotations

import re
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flower")

import deploy
from deploy.flower import watch
from deploy.flower.health import HealthBook
from deploy.flower.job_view import log_lines, retry_can_help, waterfall
from deploy.flower.page import operations_html
from deploy.flower.watch import ServiceWatch
from tasks.errors import NotReady, StorageUnavailable
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.monitoring.problems import ANCHORS, Problem, problem
from tasks.results import FailureResult, Provenance
from tests.waiting import wait_for

STATIC = Path(deploy.__file__).with_name("flower") / "static"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_service_whose_answer_is_overdue_is_silent_while_it_is_still_asked() -> None:
    clock, asked, answer = Clock(), threading.Event(), threading.Event()

    def check() -> None:
        asked.set()
        answer.wait(60)

    service = ServiceWatch("S3", check, clock=clock)
    service.start()
    assert asked.wait(60)
    assert service.problem is None
    clock.now += 2
    assert service.problem == "S3 has not answered for 2 s."
    answer.set()
    wait_for(lambda: service.problem is None, "the answer is not noticed")


def test_a_service_that_refuses_is_named_with_its_reason_until_it_answers() -> None:
    errors: list[Exception] = [StorageUnavailable("S3 is away."), ZeroDivisionError()]

    def check() -> None:
        if errors:
            raise errors.pop(0)

    service = ServiceWatch("S3", check)
    service.ask()
    assert service.problem == "S3 is away."
    service.ask()
    assert "ZeroDivisionError" in str(service.problem)
    service.ask()
    assert service.problem is None


def test_silence_is_shown_within_three_seconds() -> None:
    """The last answer may be as old as the pause, when the page asks for the last time before it is overdue."""
    every_ms = re.search(r"EVERY_MS = (\d+)", (STATIC / "problems.js").read_text())
    assert every_ms is not None
    assert watch._SILENT_S + int(every_ms[1]) / 1000 <= 3.0


def book(
    *found: Problem, redis: str | None = None, s3: str | None = None, error: Exception | None = None
) -> HealthBook:
    def current() -> tuple[Any, None]:
        if error:
            raise error
        return SimpleNamespace(problems=list(found)), None

    snapshot: Any = SimpleNamespace(current=current)
    watches: list[Any] = [SimpleNamespace(problem=said) for said in (redis, s3)]
    return HealthBook(snapshot, *watches)


def codes(book: HealthBook) -> list[str]:
    return [found["code"] for found in book.problems()]


def test_what_a_silent_redis_said_last_is_not_repeated() -> None:
    assert codes(book(problem("no_worker", "", ""), redis="silent")) == ["redis_silent"]
    assert codes(book(problem("no_worker", "", ""), s3="silent")) == ["s3_silent", "no_worker"]
    assert codes(book(error=NotReady("Flower has just started."))) == ["no_figures"]
    assert codes(book(redis="silent", error=NotReady("none"))) == ["redis_silent"]
    assert codes(book()) == []


def test_a_problem_keeps_the_time_at_which_it_was_first_seen_though_its_figures_change() -> None:
    clock, health = Clock(), book(problem("failures_rising", "7% of the jobs fail", ""))
    health.clock = clock
    first = health.problems()[0]["since"]
    clock.now += 30
    health.snapshot = book(problem("failures_rising", "12% of the jobs fail", "")).snapshot
    assert health.problems()[0]["since"] == first


def test_a_worker_that_is_behind_for_a_moment_is_no_problem() -> None:
    clock, health = Clock(), book(problem("worker_behind", "w is behind", ""))
    health.clock = clock
    assert codes(health) == []
    clock.now += 61
    assert codes(health) == ["worker_behind"]


def record(state: JobState = JobState.FAILED, code: str | None = "not_found") -> JobRecord:
    return JobRecord(
        job_id="a" * 32, state=state, task="aii.activate", queue="activate", attempts=1, submitted_at=100.0,
        finished_at=100.5, asset_id=None, worker=None, error_code=code, error_message=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "code", "helps"),
    [
        (JobState.FAILED, "not_found", True),
        (JobState.FAILED, "storage_refused", True),
        (JobState.FAILED, "deadline_exceeded", True),
        (JobState.FAILED, "code_of_a_later_version", True),
        (JobState.CANCELLED, None, True),
        (JobState.FAILED, "truncated", False),
        (JobState.FAILED, "too_large", False),
        (JobState.FAILED, "conflict", False),
        (JobState.DONE, None, False),
        (JobState.RUNNING, None, False),
    ],
)
def test_a_retry_is_offered_where_the_same_job_may_end_otherwise(
    state: JobState, code: str | None, helps: bool
) -> None:
    assert retry_can_help(record(state, code)) == helps


def failed(**timings: float) -> FailureResult:
    provenance = Provenance(worker="w", device="cpu", versions={}, timings_ms=timings, finished_at="")
    return FailureResult(task="aii.activate", job_id="a" * 32, code="c", message="", provenance=provenance)


def test_a_waterfall_fills_the_time_from_submission_to_end_without_gaps() -> None:
    bars = waterfall(failed(fetch=10, device=100, optimise=60, upload=50, total=200), record())
    assert [(bar.stage, round(bar.ms)) for bar in bars] == [
        ("waiting", 300), ("fetch", 10), ("wait for the device", 40), ("optimise", 60), ("upload", 50), ("other", 40),
    ]  # fmt: skip
    for before, after in pairwise(bars):
        assert after.left == pytest.approx(before.left + before.width)
    assert bars[-1].left + bars[-1].width == pytest.approx(100)


def test_a_job_without_times_has_a_waterfall_too() -> None:
    assert sum(bar.width for bar in waterfall(failed(), record())) == pytest.approx(100)


def test_log_lines_of_a_job_are_found_in_the_logs_of_workers_only(tmp_path: Path) -> None:
    (tmp_path / "worker-1.log").write_bytes(b"Job done job_id=abc\nJob done job_id=def\n\xff broken job_id=abc\n")
    (tmp_path / "worker-1.log.1").write_text("earlier job_id=abc\n")
    (tmp_path / "redis.log").write_text("abc\n")
    found = log_lines(tmp_path, "abc")
    assert sorted(line.split()[0] for line in found) == ["Job", "earlier", "�"]
    assert log_lines(tmp_path / "none", "abc") == []


def test_the_operations_are_served_with_the_sections_that_problems_lead_to() -> None:
    text = operations_html()
    assert text.count("<pre") == text.count('<pre tabindex="0"')  # commands are wider than a small screen
    assert set(ANCHORS.values()) <= set(re.findall(r'<h3 id="([^"]+)"', text))
    assert "<script" not in text
