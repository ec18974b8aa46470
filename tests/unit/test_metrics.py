"""Histograms, and what is made of them for Prometheus and Grafana."""

from __future__ import annotations

import json
import random
import re
import runpy
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import deploy
from tasks.errors import RedisUnavailable, error_of, kinds
from tasks.monitoring.metrics import BOUNDS_MS, COARSE_MS, Counters
from tasks.monitoring.overview import Overview, PublishedQuality, QueueState
from tasks.monitoring.paper import PAPER
from tasks.monitoring.presence import CollectionState, GpuState, WorkerNote
from tasks.monitoring.prometheus import CountersCollector, OverviewCollector
from tasks.names import TASK_ACTIVATE, TASK_QUERY

MONITORING = Path(deploy.__file__).with_name("monitoring")


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
def test_a_quantile_is_right_to_two_percent(share: float) -> None:
    draw = random.Random(1)
    values = [draw.lognormvariate(3, 1.5) for _ in range(5_000)]
    made = Counters()
    for value in values:
        made.observe("task", "stage", value)
    seen = made.stage("task", "stage")
    assert seen.quantile_ms(share) == pytest.approx(sorted(values)[round(share * 5_000) - 1], rel=0.02)
    assert seen.mean_ms == pytest.approx(statistics.mean(values))


def test_what_lies_beyond_all_bounds_is_counted_and_nothing_has_no_quantile() -> None:
    made = Counters()
    for ms in (0.0, BOUNDS_MS[0], BOUNDS_MS[-1] * 10):
        made.observe("task", "stage", ms)
    assert made.stage("task", "stage").count == 3
    assert made.stage("task", "stage").quantile_ms(1.0) == pytest.approx(BOUNDS_MS[-1])
    assert made.stage("task", "another").quantile_ms(0.5) is None


def test_durations_counted_with_the_bounds_of_the_version_before_are_read() -> None:
    stored = {f"in|task|stage|{COARSE_MS.index(ms)}": "10" for ms in (0.02, 39.8, 100.0)}
    read = Counters()
    read.read(stored | {"in|task|stage|9999": "1"})  # beyond all
    assert {
        bucket: read.stage("task", "stage").counts[bucket] for bucket in map(BOUNDS_MS.index, (0.02, 39.8, 100.0))
    } == {BOUNDS_MS.index(ms): 10 for ms in (0.02, 39.8, 100.0)}
    assert read.stage("task", "stage").count == 31


def test_counters_survive_being_written_as_a_hash_and_read_twice_are_doubled() -> None:
    first, second = counters(), Counters()
    stored = {name: str(amount) for name, amount in first.fields()}
    second.read(stored)
    assert dict(second.fields()) == dict(first.fields())
    second.read(stored)
    assert second.outcomes[TASK_ACTIVATE, "activated"] == 2 * 1_990
    assert second.stage(TASK_QUERY, "search").count == 4_000


def view() -> Overview:
    """With one of everything, so that every metric is exposed."""
    held = CollectionState(name="starter", generation=2, factory="IVF512,PQ8x8", vectors=100, journal=3)
    worker = WorkerNote(
        worker="w", pid=1, device="cpu", extractor="compact", queues=["query"], batch_images=4, memory_bytes=1,
        device_memory_bytes=None, collections=[held], disk_free_bytes=1, disk_total_bytes=2, device_busy=0.5,
        clock_offset_s=0.1,
        gpu=GpuState(utilisation=0.9, memory_used_bytes=1, memory_total_bytes=2, temperature_c=40),
    )  # fmt: skip
    return Overview(
        at=0.0, window_s=300, images_per_s=1.0, queries_per_s=1.0, comparisons=[], stages=[],
        quality=PublishedQuality(images=0, verified=0, psnr_median_db=None, psnr_lowest_db=None),
        queues=[QueueState(queue="query", waiting=1, running=1, oldest_age_s=2.0, drain_s=None)],
        running=1, counts={"done": 5}, workers=[worker], collections=[held], latest=[], outdated={}, failures=[],
        failed=1, failed_jobs=[], history=[], redis_used=0.5,
    )  # fmt: skip


def exposed(seen: Callable[[], tuple[Overview, Counters]] = lambda: (view(), counters())) -> str:
    registry = CollectorRegistry()
    registry.register(OverviewCollector(seen))
    return generate_latest(registry).decode()


def names_of(text: str) -> set[str]:
    return set(re.findall(r"^(aii_\w+?)(?:\{| )", text, re.MULTILINE))


def test_a_histogram_for_prometheus_is_cumulative_and_ends_with_all() -> None:
    pattern = r'aii_activation_seconds_bucket\{le="([^"]+)",stage="optimise"\} (\S+)'
    buckets = [(float(le), float(count)) for le, count in re.findall(pattern, exposed())]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 2_000)
    assert (0.0398 in dict(buckets), 0.0043 in dict(buckets)) == (True, True)
    assert 'aii_failures_total{code="truncated"} 10.0' in exposed()


def test_the_papers_figures_are_bounds_so_that_what_lies_below_is_counted_exactly() -> None:
    made = Counters()
    for ms in (39.79, 39.8, 39.81, 0.42, 0.421, 4.3, 4.31):
        made.observe(TASK_ACTIVATE, "optimise", ms)
    text = exposed(lambda: (view(), made))
    for le, count in (("0.00042", 1), ("0.0043", 3), ("0.0398", 6), ("+Inf", 7)):
        assert f'aii_activation_seconds_bucket{{le="{le}",stage="optimise"}} {count}.0' in text


def test_what_alerts_watch_begins_at_zero() -> None:
    text = exposed(lambda: (view(), Counters()))
    for code in ("poison", "internal", "truncated", "extractor_mismatch"):
        assert f'aii_failures_total{{code="{code}"}} 0.0' in text
    assert 'aii_jobs_total{status="failed",task="aii.activate"} 0.0' in text
    assert 'aii_optimiser_seconds_count{mode="10_steps"} 0.0' in text


@pytest.mark.parametrize("error", [RedisUnavailable("away"), ZeroDivisionError()])
def test_whatever_keeps_the_figures_away_prometheus_is_told_so(error: Exception) -> None:
    def away() -> tuple[Overview, Counters]:
        raise error

    assert "\naii_up 0.0" in exposed(away)


def test_one_worker_exposes_what_it_counted() -> None:
    registry = CollectorRegistry()
    registry.register(CountersCollector(counters))
    assert names_of(generate_latest(registry).decode()) < names_of(exposed())


def test_every_code_of_the_error_tree_is_known_by_name() -> None:
    assert {type(error_of(kind.code, "x")).code for kind in kinds()} == {kind.code for kind in kinds()}


def test_alerts_and_dashboard_speak_of_metrics_that_exist_only() -> None:
    existing = names_of(exposed())
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    texts += re.findall(r"expr:(.*?)(?:for:|labels:)", (MONITORING / "alerts.yml").read_text(), re.DOTALL)
    assert len(texts) > 20
    for text in texts:
        assert set(re.findall(r"\baii_\w+", text)) <= existing, text


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool comes with Prometheus; the test above needs none")
def test_prometheus_accepts_rules_and_figures() -> None:
    subprocess.run(["promtool", "check", "rules", MONITORING / "alerts.yml"], check=True, capture_output=True)
    subprocess.run(["promtool", "test", "rules", Path(__file__).with_name("alerts_test.yml")], check=True)
    subprocess.run(["promtool", "check", "metrics"], input=exposed().encode(), check=True, capture_output=True)


def test_figures_of_the_paper_in_the_alerts_and_in_flower_are_those_of_the_table() -> None:
    alerts = (MONITORING / "alerts.yml").read_text()
    assert re.findall(r"the paper, ([\d.]+) ms", alerts) == [f"{figure.ms:g}" for figure in PAPER]
    options = runpy.run_path(str(Path(deploy.__file__).with_name("flower") / "flowerconfig.py"))
    assert {figure.ms / 1000 for figure in PAPER} <= set(options["task_runtime_metric_buckets"])
