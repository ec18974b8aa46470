"""Histograms, and what is made of them for Prometheus and Grafana."""

from __future__ import annotations

import json
import random
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import deploy
from tasks.metrics import BOUNDS_MS, Counters
from tasks.names import TASK_ACTIVATE, TASK_QUERY
from workers.exposition import CountersCollector

MONITORING = Path(deploy.__file__).with_name("monitoring")
# What Prometheus adds to a histogram's and a counter's name.
GAUGES = {
    "aii_up", "aii_queue_jobs", "aii_queue_oldest_age_seconds", "aii_running_jobs", "aii_workers",
    "aii_worker_memory_bytes", "aii_collection_vectors", "aii_collection_journal_entries", "aii_collection_generation",
}  # fmt: skip


def counters() -> Counters:
    made = Counters()
    draw = random.Random(0)
    for _ in range(2_000):
        made.observe(TASK_ACTIVATE, "optimise", draw.lognormvariate(3, 1))
        made.observe(TASK_QUERY, "search", draw.lognormvariate(-1, 1))
    made.outcomes[TASK_ACTIVATE, "activated"] = 1_990
    made.outcomes[TASK_ACTIVATE, "failed"] = 10
    made.failures["truncated"] = 10
    return made


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_quantile_is_right_to_five_percent(share: float) -> None:
    draw = random.Random(1)
    values = [draw.lognormvariate(3, 1.5) for _ in range(5_000)]
    made = Counters()
    for value in values:
        made.observe("task", "stage", value)
    seen = made.stage("task", "stage")
    assert seen.quantile_ms(share) == pytest.approx(
        statistics.quantiles(values, n=100)[round(100 * share) - 1], rel=0.05
    )
    assert seen.mean_ms == pytest.approx(statistics.mean(values))


def test_what_lies_beyond_all_bounds_is_counted_and_nothing_has_no_quantile() -> None:
    made = Counters()
    for ms in (0.0, BOUNDS_MS[0], BOUNDS_MS[-1] * 10):
        made.observe("task", "stage", ms)
    assert made.stage("task", "stage").count == 3
    assert made.stage("task", "stage").quantile_ms(1.0) == pytest.approx(BOUNDS_MS[-1])
    assert made.stage("task", "another").quantile_ms(0.5) is None


def test_counters_survive_being_written_as_a_hash_and_read_twice_are_doubled() -> None:
    first, second = counters(), Counters()
    stored = {name: str(amount) for name, amount in first.fields()}
    second.read(stored)
    assert dict(second.fields()) == dict(first.fields())
    second.read(stored)
    assert second.outcomes[TASK_ACTIVATE, "activated"] == 2 * 1_990
    assert second.stage(TASK_QUERY, "search").count == 4_000


def exposed() -> str:
    registry = CollectorRegistry()
    registry.register(CountersCollector(counters))
    return generate_latest(registry).decode()


def test_a_histogram_for_prometheus_is_cumulative_and_ends_with_all() -> None:
    pattern = r'aii_activation_seconds_bucket\{le="([^"]+)",stage="optimise"\} (\S+)'
    buckets = [(float(le), float(count)) for le, count in re.findall(pattern, exposed())]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 2_000)
    assert (0.0398 in dict(buckets), 0.0043 in dict(buckets)) == (True, True)
    assert 'aii_failures_total{code="truncated"} 10.0' in exposed()


def test_alerts_and_dashboard_speak_of_metrics_that_exist_only() -> None:
    existing = GAUGES | set(re.findall(r"^(aii_\w+?)(?:\{| )", exposed(), re.MULTILINE))
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    texts += re.findall(r"expr:(.*?)(?:for:|labels:)", (MONITORING / "alerts.yml").read_text(), re.DOTALL)
    assert len(texts) > 20
    for text in texts:
        assert set(re.findall(r"\baii_\w+", text)) <= existing, text


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool comes with Prometheus; the test above needs none")
def test_prometheus_accepts_rules_and_figures() -> None:
    subprocess.run(["promtool", "check", "rules", MONITORING / "alerts.yml"], check=True, capture_output=True)
    subprocess.run(["promtool", "check", "metrics"], input=exposed().encode(), check=True, capture_output=True)
