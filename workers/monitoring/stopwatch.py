"""Where the time of one image goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.stages import Stage


class Stopwatch:
    """Adds up the milliseconds of named stages; for one job, in one thread. Another may ask what it is at."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._stages: dict[Stage, float] = {}
        self._current: tuple[Stage, float] | None = None

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        outer, began = self._current, time.perf_counter()
        self._current = (name, began)
        try:
            yield
        finally:
            self._current = outer
            self.add(name, (time.perf_counter() - began) * 1000)

    def current(self) -> tuple[Stage, float] | None:
        """The stage that the job is in, and for how many seconds; None between two."""
        current = self._current
        return (current[0], time.perf_counter() - current[1]) if current else None

    def add(self, name: Stage, ms: float) -> None:
        self._stages[name] = self._stages.get(name, 0.0) + ms

    def timings_ms(self) -> dict[str, float]:
        """Stages in the order they first ran, and `total` since the watch was made."""
        total = (time.perf_counter() - self._started) * 1000
        return {name: round(ms, 3) for name, ms in {**self._stages, "total": total}.items()}
