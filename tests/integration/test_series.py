"""Figures of hours and of a week, on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.connection import RedisClient, connect_redis
from tasks.monitoring.metrics import SLOT_S, Counters, Metrics
from tasks.monitoring.presence import CollectionState, WorkerNote, announce, marks_since
from tasks.monitoring.series import RANGES, Series
from tasks.names import TASK_ACTIVATE, TASK_QUERY
from tasks.settings import Settings

SIX_HOURS, WEEK = RANGES["6h"], RANGES["7d"]


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    with connect_redis(settings) as client:
        yield client


class Later(Metrics):
    """At a time that the test chooses; slots are written and read at that time."""

    now = 1_800_000_000.0

    def now_s(self) -> float:
        return self.now


@pytest.fixture
def metrics(client: RedisClient) -> Later:
    return Later(client)


def counted(images: int, ms: float) -> Counters:
    made = Counters()
    for _ in range(images):
        made.observe(TASK_ACTIVATE, "optimise", ms)
    made.outcomes[TASK_ACTIVATE, "activated"] = images
    made.outcomes[TASK_ACTIVATE, "failed"] = 1
    made.failures["truncated"] = 1
    made.parts["worker", "w", TASK_ACTIVATE] = images
    made.parts["worker", "w", "device_us"] = round(1000 * ms * images)
    made.parts["collection", "c", TASK_QUERY] = 6
    return made


def test_two_minutes_become_one_point_and_one_worker_makes_it(client: RedisClient, metrics: Later) -> None:
    start = metrics.now
    metrics.publish(counted(30, 10.0), [], [])
    metrics.note_waiting({"activate": 5, "query": 2})
    metrics.now = start + 60
    metrics.publish(counted(30, 1_000.0), [], [])
    metrics.now = start + 120 + 25
    assert Series(client, metrics).roll_up() == 2  # the two minutes, and a half hour before them
    assert Series(client, metrics).roll_up() == 0
    (point,) = Series(client, metrics).points(SIX_HOURS)
    assert (point.at, point.seconds, point.waiting, point.failed) == (start, 120, 7, 2)
    assert point.images_per_s == pytest.approx(0.5)
    assert point.workers == {"w": pytest.approx(0.5)}
    assert point.collections == {"c": pytest.approx(0.1)}
    assert point.optimise_p95_ms == pytest.approx(1_000, rel=0.02)  # of all durations, not of other quantiles


def test_a_time_that_is_not_over_is_no_point_yet(client: RedisClient, metrics: Later) -> None:
    start = metrics.now
    metrics.publish(counted(1, 1.0), [], [])
    metrics.now = start + 110
    Series(client, metrics).roll_up()
    assert [point for point in Series(client, metrics).points(SIX_HOURS) if point.images_per_s] == []


def test_a_week_of_points_takes_a_bounded_part_of_redis(client: RedisClient, metrics: Later) -> None:
    series, start = Series(client, metrics), metrics.now
    for number in range(SIX_HOURS.seconds // SIX_HOURS.step_s + 40):
        metrics.now = start + number * SIX_HOURS.step_s + 25
        metrics.publish(counted(20, 12.0), [], [])
        series.roll_up()
        if number % 30 == 0:  # what it would cost in a week
            client.delete(*client.keys("aii:metrics:2:1*"))
    kept = client.hlen(SIX_HOURS.key)
    assert kept <= SIX_HOURS.seconds // SIX_HOURS.step_s + 2
    a_point = client.memory_usage(SIX_HOURS.key, samples=0) / kept
    assert a_point * (SIX_HOURS.seconds / SIX_HOURS.step_s + WEEK.seconds / WEEK.step_s) < 400_000
    assert len(series.points(SIX_HOURS)) <= SIX_HOURS.seconds // SIX_HOURS.step_s + 1


def test_a_point_that_cannot_be_read_hides_no_other(client: RedisClient, metrics: Later) -> None:
    metrics.now += 145
    Series(client, metrics).roll_up()
    client.hset(SIX_HOURS.key, mapping={"1": "no JSON", "2": "{}"})
    assert len(Series(client, metrics).points(SIX_HOURS)) == 1


def test_parts_of_workers_are_in_slots_and_not_in_the_totals_that_stay_for_ever(
    client: RedisClient, metrics: Later
) -> None:
    metrics.publish(counted(3, 2.0), [], [])
    assert metrics.total().outcomes[TASK_ACTIVATE, "activated"] == 3
    assert not metrics.total().parts
    (slot,) = metrics.read([int(metrics.now) // SLOT_S])
    assert slot.counted.parts["worker", "w", "device_us"] == 6_000


def test_starts_of_workers_and_new_generations_are_marked_once(client: RedisClient) -> None:
    def note(worker: str, generation: int) -> WorkerNote:
        held = CollectionState(name="c", generation=generation, factory="IVF", vectors=1, journal=0)
        return WorkerNote(
            worker=worker, pid=1, device="cpu", extractor="compact", queues=["query"], batch_images=4, memory_bytes=1,
            device_memory_bytes=None, collections=[held], version="9",
        )  # fmt: skip

    for worker, generation in (("a", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 2)):
        announce(client, note(worker, generation), 60)
    said = sorted(mark.text for mark in marks_since(client, 0))
    assert said == [
        "c: generation 1", "c: generation 2", "worker a started, version 9", "worker b started, version 9",
    ]  # fmt: skip
    assert marks_since(client, 4e9) == []


def test_a_note_says_by_how_much_the_clock_is_off(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.monitoring import presence  # noqa: PLC0415  # its clock is moved

    real = presence.time.time
    monkeypatch.setattr(presence.time, "time", lambda: real() + 3_600)
    note = WorkerNote(
        worker="w", pid=1, device="cpu", extractor="compact", queues=[], batch_images=4, memory_bytes=1,
        device_memory_bytes=None, collections=[],
    )  # fmt: skip
    announce(client, note, 60)
    monkeypatch.undo()
    (read,) = presence.present_workers(client)
    assert read.clock_offset_s == pytest.approx(3_600, abs=600)
