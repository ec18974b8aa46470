"""Counts what this worker does and publishes it once a second, so that a job pays for a few additions only."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from tasks.errors import RedisUnavailable
from tasks.monitoring.metrics import Counters, Failure, Metrics
from tasks.monitoring.paper import OPTIMISER, SEARCH, mode_of
from tasks.periodic import PeriodicThread
from tasks.results import ActivationResult, FailureResult, QueryResult, Result

__all__ = ["Recorder"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_PROBES: Final = (1, 16)  # those of the paper


class Recorder:
    """What cannot be published while Redis is away is published later; call :meth:`publish` once more in the end.
    Thread-safe."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._counted = Counters()  # since it was last published
        self._total = Counters()  # since this process began
        self._failures: dict[str, Failure] = {}
        self._activations: list[str] = []
        self._queries: list[str] = []
        self.thread = PeriodicThread("recorder", _EVERY_S, self.publish)

    @property
    def total(self) -> Counters:
        """A copy of all that this process counted."""
        with self._lock:
            copy = Counters()
            copy.add(self._total)
            return copy

    def observe(self, result: Result) -> None:
        """Count a job that was closed."""
        with self._lock:
            _count(result, self._counted)
            _count(result, self._total)
            if isinstance(result, FailureResult):
                self._failures[result.code] = Failure(result.code, result.message, result.job_id, time.time())
            if isinstance(result, ActivationResult):
                self._activations.append(result.job_id)
            if isinstance(result, QueryResult):
                self._queries = [*self._queries[-99:], result.job_id]

    def publish(self) -> None:
        """Publish what was counted; it is kept for the next time when Redis does not take it."""
        with self._lock:
            counted, failures, activations = self._counted, self._failures, self._activations
            queries, self._queries = self._queries, []
            self._counted, self._failures, self._activations = Counters(), {}, []
        if not counted.outcomes:
            return
        try:
            self._metrics.publish(counted, list(failures.values()), activations, queries)
        except RedisUnavailable as error:
            logger.warning("Figures could not be published yet: %s", error)
            self._take_back(counted, failures, activations)
        except Exception:  # whatever it was: figures are no reason to go without all later ones
            logger.exception("Figures could not be published yet")
            self._take_back(counted, failures, activations)

    def _take_back(self, counted: Counters, failures: dict[str, Failure], activations: list[str]) -> None:
        with self._lock:
            counted.add(self._counted)
            self._counted = counted
            self._failures = failures | self._failures
            self._activations = (activations + self._activations)[-100:]


def _count(result: Result, counters: Counters) -> None:
    counters.outcomes[result.task, result.status] += 1
    if isinstance(result, FailureResult):
        counters.failures[result.code] += 1
        return
    stages = dict(result.provenance.timings_ms)
    if "device" in stages:  # until the device has answered; what it did not spend on this image, the image has waited
        stages["wait"] = max(0.0, stages.pop("device") - stages.get("optimise", 0.0))
    for stage, ms in stages.items():
        counters.observe(result.task, stage, ms)
    if isinstance(result, ActivationResult | QueryResult):
        counters.parts["worker", result.provenance.worker, result.task] += 1
        counters.parts["collection", result.collection, result.task] += 1
    if isinstance(result, QueryResult):
        probed = f"nprobe_{result.options.nprobe}" if result.options.nprobe in _PROBES else "other"
        counters.observe(SEARCH, "views" if result.options.views else probed, stages.get("search", 0.0))
    if isinstance(result, ActivationResult):
        _count_activation(result, stages.get("optimise", 0.0), counters)


def _count_activation(result: ActivationResult, optimise_ms: float, counters: Counters) -> None:
    mode, seen = mode_of(result.options), result.verification
    counters.observe(OPTIMISER, mode, optimise_ms)
    counters.steps[mode] += seen.steps
    counters.parts["worker", result.provenance.worker, "device_us"] += round(1000 * optimise_ms)
    if result.quality.psnr_db is not None:
        counters.observe_psnr(result.quality.psnr_db)
    if seen.steps and not result.options.robust:  # a step over edited views is several
        counters.observe(result.task, "step", optimise_ms / seen.steps)
