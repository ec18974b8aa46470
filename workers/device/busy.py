"""For how much of the time a device computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["BusyTime"]


class BusyTime:
    """Adds up the time in which at least one batch runs, however many run beside or within each other. Thread-safe.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._since = 0.0  # when the first of those that run began
        self._busy_s = 0.0
        self._asked = (clock(), 0.0)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """While a batch runs."""
        with self._lock:
            if not self._running:
                self._since = self._clock()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._busy_s += self._clock() - self._since

    def share(self) -> float:
        """The share (0..1) of the time since this was last asked in which batches ran."""
        with self._lock:
            now = self._clock()
            busy_s = self._busy_s + (now - self._since if self._running else 0.0)
            (then, before), self._asked = self._asked, (now, busy_s)
        return min(1.0, (busy_s - before) / (now - then)) if now > then else 0.0
