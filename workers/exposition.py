"""The same figures for Prometheus: of all workers (on Flower's ``/metrics``), or of one (on its own port)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tasks.connection import connect_redis, redis_address
from tasks.errors import RedisUnavailable
from tasks.metrics import BOUNDS_MS, Counters, Histogram, Metrics
from tasks.names import TASK_ACTIVATE, TASK_QUERY
from tasks.overview import Overview, look
from tasks.settings import Settings

__all__ = ["CountersCollector", "OverviewCollector"]

_Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
# Fewer bounds than are kept: each is a time series. Around the paper's 0.38, 4.3 and 39.8 ms they are close.
_LE_MS: Final = (0.1, 0.2, 0.38, 0.7, 1.5, 3, 4.3, 6, 10, 20, 30, 39.8, 60, 100, 200, 500, 1_000, 3_000, 10_000, 60_000)
_FAMILIES: Final = (
    (TASK_ACTIVATE, "aii_activation_seconds", "Time an activation spent in a stage."),
    (TASK_QUERY, "aii_query_seconds", "Time a query spent in a stage."),
)


class CountersCollector(Collector):
    """Histograms and counters of one process."""

    def __init__(self, counters: Callable[[], Counters]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[_Metric]:
        return _counted(self._counters())


class OverviewCollector(Collector):
    """Those of all workers, with queues, workers and collections. While Redis is away only `aii_up` is given, as 0."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def describe(self) -> list[_Metric]:
        """Nothing is asked when the collector is registered."""
        return []

    def collect(self) -> Iterator[_Metric]:
        up = GaugeMetricFamily("aii_up", "Whether Redis answers (1) or not (0).")
        try:
            view, counters = look(self._settings), self._total()
        except RedisUnavailable:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _counted(counters)
        yield from _gauges(view)

    def _total(self) -> Counters:
        with connect_redis(self._settings) as client:
            return Metrics(client, redis_address(self._settings)).total()


def _counted(counters: Counters) -> Iterator[_Metric]:
    for task, name, text in _FAMILIES:
        family = HistogramMetricFamily(name, text, labels=["stage"])
        for (which, stage), histogram in counters.stages.items():
            if which == task:
                family.add_metric([stage], _buckets(histogram), histogram.sum_ms / 1000)
        yield family
    jobs = CounterMetricFamily("aii_jobs", "Jobs that were closed.", labels=["task", "status"])
    for (task, status), count in counters.outcomes.items():
        jobs.add_metric([task, status], count)
    yield jobs
    failures = CounterMetricFamily("aii_failures", "Jobs that failed, by error code.", labels=["code"])
    for code, count in counters.failures.items():
        failures.add_metric([code], count)
    yield failures


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts; a bucket counts for a bound once all of it lies below."""
    buckets = []
    for le_ms in _LE_MS:
        below = sum(n for i, n in histogram.counts.items() if i < len(BOUNDS_MS) and BOUNDS_MS[i] <= le_ms)
        buckets.append((f"{le_ms / 1000:g}", float(below)))
    return [*buckets, ("+Inf", float(histogram.count))]


def _gauges(view: Overview) -> Iterator[_Metric]:
    waiting = GaugeMetricFamily("aii_queue_jobs", "Jobs that wait in a queue.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "aii_queue_oldest_age_seconds",
        "For how long the first job of a queue has waited; 0 for none.",
        labels=["queue"],
    )
    for queue in view.queues:
        waiting.add_metric([queue.queue], queue.waiting)
        oldest.add_metric([queue.queue], queue.oldest_age_s or 0.0)
    yield from (waiting, oldest)
    running = GaugeMetricFamily("aii_running_jobs", "Jobs that a worker holds.")
    running.add_metric([], view.running)
    workers = GaugeMetricFamily("aii_workers", "Warm workers.")
    workers.add_metric([], len(view.workers))
    memory = GaugeMetricFamily("aii_worker_memory_bytes", "Resident memory of a worker.", labels=["worker"])
    for worker in view.workers:
        memory.add_metric([worker.worker], worker.memory_bytes)
    yield from (running, workers, memory)
    vectors = GaugeMetricFamily("aii_collection_vectors", "Entries in a collection's segments.", labels=["collection"])
    journal = GaugeMetricFamily(
        "aii_collection_journal_entries", "Changes of a collection that no segment covers.", labels=["collection"]
    )
    generation = GaugeMetricFamily("aii_collection_generation", "The generation in force.", labels=["collection"])
    for held in view.collections:
        vectors.add_metric([held.name], held.vectors)
        journal.add_metric([held.name], held.journal)
        generation.add_metric([held.name], held.generation)
    yield from (vectors, journal, generation)
