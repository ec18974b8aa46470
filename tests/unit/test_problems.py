"""What is found wrong, what leads to it, and where it is said what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import deploy
from tasks.monitoring.presence import CollectionState, WorkerNote
from tasks.monitoring.problems import ANCHORS, Health, problem, problems_of
from tasks.names import QUEUES
from tasks.settings import Settings


def worker(name: str = "w", **said: object) -> WorkerNote:
    usual: dict[str, object] = {
        "worker": name, "pid": 1, "device": "cpu", "extractor": "compact", "queues": list(QUEUES), "batch_images": 4,
        "memory_bytes": 1, "device_memory_bytes": None, "collections": [], "disk_free_bytes": 50,
        "disk_total_bytes": 100, "clock_offset_s": 0.1, "idle_s": {"reconciler": 1.0, "follower": 1.0},
    }  # fmt: skip
    return WorkerNote.model_validate(usual | said)


def held(generation: int = 1, journal: int = 0) -> CollectionState:
    return CollectionState(name="c", generation=generation, factory="IVF", vectors=1, journal=journal)


def health(**said: object) -> Health:
    usual: dict[str, object] = {
        "workers": [worker()], "collections": [], "oldest_s": {"query": 1.0}, "waiting": {"activate": 3}, "jobs": 100,
        "failed": 5, "codes": {"truncated": 5}, "dead": 0,
    }  # fmt: skip
    return Health.model_validate(usual | said)


def test_where_nothing_is_wrong_nothing_is_said() -> None:
    assert problems_of(health(), Settings()) == []


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ({"workers": []}, "no_worker", "No worker"),
        ({"workers": [worker(queues=["query", "index"])]}, "lane_without_worker", "queue activate"),
        ({"workers": [worker(dead={"reconciler": "It has died."})]}, "background_dead", "reconciler of w is dead"),
        ({"workers": [worker(idle_s={"reconciler": 121.0})]}, "background_dead", "reconciler of w is stuck"),
        ({"workers": [worker(idle_s={"follower": 901.0})]}, "background_dead", "follower of w is stuck"),
        ({"workers": [worker(disk_free_bytes=4)]}, "disk_full", "disk of w"),
        ({"redis_used": 0.96}, "redis_full", "Redis"),
        ({"failed": 6, "codes": {"truncated": 6}}, "failures_rising", "6%"),
        ({"dead": 1}, "dead_letters", "1 dead letter"),
        ({"oldest_s": {"query": 6.0}}, "queue_old", "query"),
        ({"oldest_s": {"activate": 901.0}}, "queue_old", "15 min"),
        ({"collections": [held(journal=50_001)]}, "index_stale", "stale"),
        (
            {"collections": [held(2)], "workers": [worker(collections=[held(1)]), worker("v", collections=[held(2)])]},
            "worker_behind",
            "w is behind in c",
        ),
        ({"workers": [worker(clock_offset_s=-6.0)]}, "clock_off", "clock of w"),
        ({"missed": ["Search: 2 ms, the target is 1 ms"]}, "target_missed", "target"),
    ],
)
def test_each_problem_is_found_and_named(said: dict[str, object], code: str, words: str) -> None:
    (found,) = problems_of(health(**said), Settings())
    assert found.code == code
    assert words in found.title


@pytest.mark.parametrize(
    "said",
    [
        {"workers": [worker(idle_s={"follower": 600.0})]},  # it may be downloading a generation
        {"jobs": 4, "failed": 4},  # too few to tell a share
        {"oldest_s": {"activate": 899.0}},
        {
            "workers": [worker(disk_free_bytes=None, disk_total_bytes=None, clock_offset_s=None, idle_s={})]
        },  # an old one
    ],
)
def test_what_is_no_problem_is_not_called_one(said: dict[str, object]) -> None:
    assert problems_of(health(**said), Settings()) == []


def test_the_worst_comes_first() -> None:
    found = problems_of(health(workers=[worker(queues=["query", "index"], clock_offset_s=9.0)], dead=2), Settings())
    assert [p.code for p in found] == ["lane_without_worker", "dead_letters", "clock_off"]
    assert [p.severity for p in found] == ["severe", "warning", "warning"]


def test_every_problem_leads_to_a_section_of_the_operations() -> None:
    text = Path(deploy.__file__).with_name("README.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", text, re.MULTILINE)}
    assert {problem(code, "", "").anchor for code in ANCHORS} <= headings


def test_a_note_of_a_later_version_is_read() -> None:
    later = worker().model_dump() | {"something_new": 1}
    assert WorkerNote.model_validate(later) == worker()
