"""Counts what this worker does and publishes it once a second, so that a job pays for a few additions only."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from tasks.errors import RedisUnavailable
from tasks.metrics import Counters, Failure, Metrics
from tasks.results import ActivationResult, FailureResult, Result

__all__ = ["Recorder"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0


class Recorder:
    """Thread-safe. What cannot be published while Redis is away is published later."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._counted = Counters()
        self._failures: dict[str, Failure] = {}
        self._activations: list[str] = []
        self._total = Counters()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def total(self) -> Counters:
        """A copy of all that this process counted."""
        with self._lock:
            copy = Counters()
            copy.add(self._total)
            copy.add(self._counted)
            return copy

    def observe(self, result: Result) -> None:
        """Count a job that was closed."""
        with self._lock:
            self._counted.outcomes[result.task, result.status] += 1
            if isinstance(result, FailureResult):
                self._counted.failures[result.code] += 1
                self._failures[result.code] = Failure(result.code, result.message, result.job_id, time.time())
                return
            for stage, ms in result.provenance.timings_ms.items():
                self._counted.observe(result.task, stage, ms)
            if isinstance(result, ActivationResult):
                self._activations.append(result.job_id)
                optimise_ms = result.provenance.timings_ms.get("optimise", 0.0)
                # One more forward than steps: the last look, which finds that an image has settled.
                self._counted.observe(result.task, "step", optimise_ms / (result.verification.steps + 1))

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._publish()
        self._publish()

    def _publish(self) -> None:
        with self._lock:
            counted, failures, activations = self._counted, self._failures, self._activations
            self._counted, self._failures, self._activations = Counters(), {}, []
            self._total.add(counted)
        if not counted.outcomes:
            return
        try:
            self._metrics.publish(counted, list(failures.values()), activations)
        except RedisUnavailable as error:
            logger.warning("Figures could not be published yet: %s", error)
            self._take_back(counted, failures, activations)

    def _take_back(self, counted: Counters, failures: dict[str, Failure], activations: list[str]) -> None:
        with self._lock:
            counted.add(self._counted)
            self._counted = counted
            self._failures = failures | self._failures
            self._activations = (activations + self._activations)[-100:]
