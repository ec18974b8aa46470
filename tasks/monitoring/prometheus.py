"""The same figures for Prometheus: of all workers (on Flower's ``/metrics``), or of one (on its own port)."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tasks.errors import AiiError, kinds
from tasks.kinds import KINDS
from tasks.monitoring.metrics import BOUNDS_MS, EXPOSED_MS, Counters, Histogram
from tasks.monitoring.overview import Overview
from tasks.monitoring.paper import MODES, OPTIMISER, PAPER
from tasks.monitoring.problems import ANCHORS

__all__ = ["CountersCollector", "OverviewCollector"]

logger = logging.getLogger(__name__)

_Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_FAMILIES: Final = (
    *((kind.task, *kind.metric, "stage") for kind in KINDS if kind.metric),
    (OPTIMISER, "aii_optimiser_seconds", "Time of the device that the optimiser took for one image.", "mode"),
)
# By Prometheus' name for a bound, in seconds: the last bucket below it.
_BOUNDS: Final = {f"{le_ms / 1000:g}": BOUNDS_MS.index(le_ms) for le_ms in EXPOSED_MS}
_TRANSITIONS: Final = ("submitted", "done", "failed", "cancelled", "resent_lease", "resent_lost", "dead")


class CountersCollector(Collector):
    """Histograms and counters of one process."""

    def __init__(self, counters: Callable[[], Counters]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[_Metric]:
        return _counted(self._counters())


class OverviewCollector(Collector):
    """Those of all workers, with queues, workers and collections. While they cannot be had only `aii_up`, as 0, and
    `aii_storage_up` are given."""

    def __init__(
        self, seen: Callable[[], tuple[Overview, Counters]], s3_problem: Callable[[], str | None] = lambda: None
    ) -> None:
        self._seen = seen
        self._s3_problem = s3_problem

    def describe(self) -> list[_Metric]:
        """Nothing is asked when the collector is registered."""
        return []

    def collect(self) -> Iterator[_Metric]:
        storage = GaugeMetricFamily("aii_storage_up", "Whether S3 answers (1) or not (0).")
        storage.add_metric([], int(self._s3_problem() is None))
        yield storage
        up = GaugeMetricFamily("aii_up", "Whether Redis answers (1) or not (0).")
        try:
            view, counters = self._seen()
        except Exception as error:  # whatever it was, Flower's own figures are still exported
            if not isinstance(error, AiiError):
                logger.exception("There are no figures for Prometheus")
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _counted(counters)
        yield from _gauges(view)
        yield from _problems(view)
        yield from _of_workers(view)
        yield from _of_collections(view)


def _counted(counters: Counters) -> Iterator[_Metric]:
    for task, name, text, label in _FAMILIES:
        family = HistogramMetricFamily(name, text, labels=[label])
        seen = {stage: histogram for (which, stage), histogram in counters.stages.items() if which == task}
        # A series that is born with its first event has no increase then: what alerts watch begins at zero.
        born = dict.fromkeys(MODES, Histogram()) if task == OPTIMISER else {}
        for stage, histogram in (born | seen).items():
            family.add_metric([stage], _buckets(histogram), histogram.sum_ms / 1000)
        yield family
    jobs = CounterMetricFamily("aii_jobs", "Jobs that were closed.", labels=["task", "status"])
    outcomes = dict.fromkeys(((kind.task, status) for kind in KINDS for status in kind.statuses), 0)
    for labels, count in (outcomes | counters.outcomes).items():
        jobs.add_metric(labels, count)
    yield jobs
    failures = CounterMetricFamily("aii_failures", "Jobs that failed, by error code.", labels=["code"])
    for code, count in (dict.fromkeys(sorted({kind.code for kind in kinds()}), 0) | counters.failures).items():
        failures.add_metric([code], count)
    yield failures


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts, exact: every bound here is one there."""
    filled = sorted(histogram.counts)
    below = list(accumulate((histogram.counts[bucket] for bucket in filled), initial=0))
    buckets = [(le, float(below[bisect_right(filled, last)])) for le, last in _BOUNDS.items()]
    return [*buckets, ("+Inf", float(histogram.count))]


def _gauges(view: Overview) -> Iterator[_Metric]:
    paper = GaugeMetricFamily("aii_paper_seconds", "The paper's latency for one image.", labels=["figure"])
    for figure in PAPER:
        paper.add_metric([figure.name], figure.ms / 1000)
    waiting = GaugeMetricFamily("aii_queue_jobs", "Jobs that wait in a queue.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "aii_queue_oldest_age_seconds",
        "For how long the oldest job of a queue has waited; 0 for none.",
        labels=["queue"],
    )
    held = GaugeMetricFamily("aii_queue_running_jobs", "Jobs of a queue that a worker holds.", labels=["queue"])
    for queue in view.queues:
        waiting.add_metric([queue.queue], queue.waiting)
        held.add_metric([queue.queue], queue.running)
        oldest.add_metric([queue.queue], queue.oldest_age_s or 0.0)
    running = GaugeMetricFamily("aii_running_jobs", "Jobs that a worker holds.")
    running.add_metric([], view.running)
    failed = GaugeMetricFamily("aii_failed_jobs", "Failed jobs that are kept, and can be retried.")
    failed.add_metric([], view.failed)
    dead = GaugeMetricFamily("aii_dead_letters", "Messages and records that could not be used, kept for an operator.")
    dead.add_metric([], view.dead)
    moved = CounterMetricFamily("aii_ledger_transitions", "Jobs that the ledger moved.", labels=["to"])
    for name, count in (dict.fromkeys(_TRANSITIONS, 0) | view.counts).items():
        moved.add_metric([name], count)
    yield from (paper, waiting, held, oldest, running, failed, dead, moved)


def _problems(view: Overview) -> Iterator[_Metric]:
    problems = GaugeMetricFamily("aii_problems", "What is wrong now, by its name.", labels=["problem"])
    for code, count in (dict.fromkeys(ANCHORS, 0) | Counter(found.code for found in view.problems)).items():
        problems.add_metric([code], count)
    yield problems
    if view.redis_used is not None:
        used = GaugeMetricFamily("aii_redis_memory_ratio", "The share of Redis' memory limit that is used.")
        used.add_metric([], view.redis_used)
        yield used


def _of_workers(view: Overview) -> Iterator[_Metric]:
    workers = GaugeMetricFamily("aii_workers", "Warm workers.")
    workers.add_metric([], len(view.workers))
    memory = GaugeMetricFamily("aii_worker_memory_bytes", "Resident memory of a worker.", labels=["worker"])
    labels = ["worker", "device"]
    held = GaugeMetricFamily(
        "aii_worker_collection_generation",
        "The generation of a collection that a worker answers from.",
        labels=["worker", "collection"],
    )
    busy = GaugeMetricFamily(
        "aii_worker_device_busy_ratio", "The share of the last seconds in which its device computed.", labels=labels
    )
    hot = GaugeMetricFamily("aii_worker_gpu_celsius", "Temperature of a worker's GPU.", labels=labels)
    used = GaugeMetricFamily("aii_worker_gpu_utilisation_ratio", "How busy its GPU is, by NVML.", labels=labels)
    full = GaugeMetricFamily("aii_worker_gpu_memory_ratio", "How full its GPU's memory is, by NVML.", labels=labels)
    free = GaugeMetricFamily("aii_worker_disk_free_ratio", "The free share of its disk.", labels=["worker"])
    clock = GaugeMetricFamily("aii_worker_clock_offset_seconds", "Its clock ahead of Redis'.", labels=["worker"])
    for worker in view.workers:
        memory.add_metric([worker.worker], worker.memory_bytes)
        own = [worker.worker, worker.device]
        if worker.device_busy is not None:
            busy.add_metric(own, worker.device_busy)
        if worker.gpu:
            hot.add_metric(own, worker.gpu.temperature_c)
            used.add_metric(own, worker.gpu.utilisation)
            full.add_metric(own, worker.gpu.memory_used_bytes / worker.gpu.memory_total_bytes)
        if worker.disk_free_bytes is not None and worker.disk_total_bytes:
            free.add_metric([worker.worker], worker.disk_free_bytes / worker.disk_total_bytes)
        if worker.clock_offset_s is not None:
            clock.add_metric([worker.worker], worker.clock_offset_s)
        for state in worker.collections:
            held.add_metric([worker.worker, state.name], state.generation)
    yield from (workers, memory, held, busy, hot, used, full, free, clock)


def _of_collections(view: Overview) -> Iterator[_Metric]:
    vectors = GaugeMetricFamily("aii_collection_vectors", "Entries in a collection's segments.", labels=["collection"])
    journal = GaugeMetricFamily(
        "aii_collection_journal_entries", "Changes of a collection that no segment covers.", labels=["collection"]
    )
    generation = GaugeMetricFamily("aii_collection_generation", "The current generation.", labels=["collection"])
    for held in view.collections:
        vectors.add_metric([held.name], held.vectors)
        journal.add_metric([held.name], held.journal)
        generation.add_metric([held.name], held.generation)
    yield from (vectors, journal, generation)
