"""A function that a program calls again and again in the background."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from tasks.errors import NotReady, Unavailable

__all__ = ["PeriodicThread"]

logger = logging.getLogger(__name__)


class PeriodicThread:
    """Calls `function` every `period_s` seconds in a daemon thread of its own, from :meth:`start` to :meth:`stop`.

    No exception of the function ends the thread: a worker whose leases are no longer renewed, say, would lose every
    job that it starts. Each is logged, that of a service that is away in one line, and the next call comes as usual.

    Args:
        name: of the thread, for logs and debuggers.
        period_s: from the end of one call to the beginning of the next.
        jitter: the share of the period by which a pause may be longer or shorter, at random; keeps many processes from
            asking the same server in the same moment.
        at_once: whether the first call comes at the start instead of one period later.
        stale_after_s: how long after the end of a call :meth:`check` takes the thread for stuck; None for never.
    """

    def __init__(
        self,
        name: str,
        period_s: float,
        function: Callable[[], object],
        *,
        jitter: float = 0.0,
        at_once: bool = False,
        stale_after_s: float | None = None,
    ) -> None:
        self.name = name
        self._period_s = period_s
        self._function = function
        self._jitter = jitter
        self._at_once = at_once
        self._stale_after_s = stale_after_s
        self._last_run: float | None = None  # on the monotonic clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. Does nothing once it was started: a thread that was stopped does not begin again."""
        if self._thread.ident is None and not self._stop.is_set():
            self._last_run = time.monotonic()
            self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """End the pause at once, and wait for a call that is running; at most `timeout_s` seconds, if given."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._thread.is_alive()

    @property
    def last_run_s(self) -> float | None:
        """Seconds since a call last ended, well or with an exception, or since the start; None before that."""
        return None if self._last_run is None else time.monotonic() - self._last_run

    def check_alive(self) -> None:
        """Raise NotReady when the thread was started and is not running."""
        if self._last_run is not None and not self.alive and not self._stop.is_set():
            raise NotReady(f"The background thread {self.name!r} has died.")

    def check(self) -> None:
        """Raise NotReady when the thread is not running, or when its last call ended too long ago."""
        if not self.alive:
            raise NotReady(f"The background thread {self.name!r} is not running.")
        age_s = self.last_run_s or 0.0
        if self._stale_after_s is not None and age_s > self._stale_after_s:
            raise NotReady(f"The background thread {self.name!r} is stuck: its last call ended {age_s:.0f} s ago.")

    def _run(self) -> None:
        if self._at_once:
            self._call()
        while not self._stop.wait(self._pause_s()):
            self._call()

    def _pause_s(self) -> float:
        return self._period_s * random.uniform(1 - self._jitter, 1 + self._jitter)

    def _call(self) -> None:
        try:
            self._function()
        except Unavailable as error:
            logger.warning("%s: %s The next try is in %.3g s.", self.name, error, self._period_s)
        except Exception:
            logger.exception("%s failed; the next try is in %.3g s", self.name, self._period_s)
        self._last_run = time.monotonic()
