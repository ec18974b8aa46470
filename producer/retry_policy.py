"""How long a command waits for what is missing: a service that is away, or a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from tasks.errors import AiiError, Unavailable

_T = TypeVar("_T")

__all__ = ["NO_RETRIES", "RetryPolicy", "worker_expected"]

_PAUSE_S: Final = 0.5
# Longer than a request takes to fail: failures that lie further apart are of two outages.
_SAME_OUTAGE_S: Final = 45.0


class RetryPolicy:
    """Waits out a restart or a failover of Redis or S3: `limit_s` seconds for each outage. Thread-safe."""

    def __init__(self, limit_s: float, note: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._note = note
        self._lock = threading.Lock()
        self._began = self._last = float("-inf")

    def wait(self, error: Unavailable) -> None:
        """Pause before the next attempt; raises `error` when the outage has lasted too long."""
        with self._lock:
            now = time.monotonic()
            if now - self._last > _SAME_OUTAGE_S:
                self._began = now
                if self._limit_s > 0:
                    self._note(f"{error.message} Waiting for it, at most {self._limit_s:g} s.")
            self._last = now
            if now - self._began >= self._limit_s:
                raise error
        time.sleep(_PAUSE_S)

    def call(self, action: Callable[[], _T]) -> _T:
        """What `action` returns; it is called again while it raises Unavailable, until an outage lasts too long."""
        while True:
            try:
                return action()
            except Unavailable as error:
                self.wait(error)


NO_RETRIES: Final = RetryPolicy(0, lambda _: None)


@contextmanager
def worker_expected(missing: Callable[[], str], note: Callable[[str], None], after_s: float = 2.0) -> Iterator[None]:
    """Say once, `after_s` seconds after the start or at the end of an earlier end, that no worker does the jobs.

    Args:
        missing: what is to be said, or "" while there is a worker.
    """
    ended = threading.Event()

    def watch() -> None:
        ended.wait(after_s)
        try:
            text = missing()
        except AiiError:  # Redis is away, which the command itself notices
            return
        if text:
            note(text)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(after_s)
