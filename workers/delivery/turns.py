"""Which queues a lane takes its next message from, so that no client fills its threads while others ask too.

Queues give in turns (:mod:`tasks.shares`). That alone keeps a client that asks now and then waiting until one of the
threads that another one's backlog fills is free, and its job then shares the cores with all of those.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from kombu.utils.scheduling import round_robin_cycle

from tasks.names import QUEUE_INDEX

__all__ = ["Turns"]

_ACTIVE_S: Final = 5.0  # for so long after its latest job, threads are kept free of others for a client


class Turns(round_robin_cycle):  # type: ignore[misc]  # kombu has no types
    """The order in which a channel of kombu asks queues: the one that gave a message moves to the end.

    While jobs of several clients come, none has more than half of the threads, and the last free one is kept for a
    client without a job here, if there was one of it lately.

    Args:
        taken: how many messages of each queue are at work.
        most: how many may be, of all queues; 0 for any number.
        clock: seconds, monotonic.

    Attributes:
        left_out: the queues that are not asked now.
    """

    def __init__(
        self, taken: Callable[[], Counter[str]], most: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.left_out: frozenset[str] = frozenset()
        self._taken = taken
        self._most = most
        self._clock = clock
        self._gave: dict[str, float] = {}

    def consume(self, n: int) -> list[str]:
        self.left_out = self._full()
        return [queue for queue in super().consume(n) if queue not in self.left_out]

    def rotate(self, last_used: str) -> str:
        self._gave[last_used] = self._clock()
        return str(super().rotate(last_used))

    def outdated(self) -> bool:
        """Whether a queue is left out that should be asked now."""
        return bool(self.left_out - self._full())

    def _full(self) -> frozenset[str]:
        """The queues that have as many messages at work as they may have."""
        taken, most = self._taken(), self._most()
        lately = self._clock() - _ACTIVE_S
        asked = {queue for queue, at in self._gave.items() if at > lately or taken[queue]}
        active = asked - {QUEUE_INDEX}  # its jobs are no client's, and one may take an hour
        if len(active) < 2 or not most:
            return frozenset()
        half, last_free = (most + 1) // 2, taken.total() >= most - 1
        kept = last_free and not all(taken[queue] for queue in active)
        return frozenset(queue for queue, count in taken.items() if count >= half or (count and kept))
