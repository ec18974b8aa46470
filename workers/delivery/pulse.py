"""Whether the lanes' loops turn: a lane that does not, while Redis answers, takes no more messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from tasks.errors import NotReady, RedisUnavailable

__all__ = ["Pulse"]

# Celery waits for up to half a minute between two attempts to reach Redis again, and a silent socket for ten seconds.
_LONGEST_S: Final = 180.0


class Pulse:
    """When each lane last turned. Thread-safe.

    Args:
        ping: raises RedisUnavailable while Redis is away; a lane that waits for it is not stuck.
        clock: monotonic seconds.
    """

    def __init__(self, ping: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._ping = ping
        self._clock = clock
        self._turned: dict[str, float] = {}
        self._redis_back = clock()
        self._lock = threading.Lock()

    def beat(self, lane: str) -> None:
        self._turned[lane] = self._clock()

    def check(self) -> None:
        """Raise NotReady when a lane has not turned for long although Redis answers."""
        now = self._clock()
        try:
            self._ping()
        except RedisUnavailable:
            with self._lock:
                self._redis_back = now
            return
        for lane, turned in list(self._turned.items()):
            if now - max(turned, self._redis_back) > _LONGEST_S:
                raise NotReady(f"The lane {lane} has taken no message for {now - turned:.0f} s: it is stuck.")
