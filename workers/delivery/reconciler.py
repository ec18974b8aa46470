"""The reconciler: finds jobs that no worker will do, and sends their messages again.

Two kinds of jobs are found: those whose lease ran out (their worker died), and queued ones whose message is gone. A
queue is first in, first out, so a job that merely waits is never taken for lost. It is lost only when jobs submitted
*after* it have started, or the queue has been empty, and a grace time has passed since.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import redis
from redis.lock import Lock

from tasks.app import Sender
from tasks.connection import RedisClient
from tasks.errors import RedisUnavailable
from tasks.ledger.ledger import Ledger, QueueState
from tasks.ledger.records import Resend
from tasks.names import QUEUES

logger = logging.getLogger(__name__)

_LOCK: Final = "aii:reconciler"


class LostPlaces:
    """Judges, from a queue's state over time, up to which place waiting jobs must be lost.

    Args:
        grace_s: how long a message that was overtaken may still turn up.
        clock: seconds, monotonic.
    """

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._heads: deque[tuple[float, int]] = deque()
        self._empty_since: tuple[float, int] | None = None

    def observe(self, state: QueueState) -> int:
        """Take note of the queue's state; returns the last lost place, 0 when there is none."""
        now = self._clock()
        return max(self._overtaken(now, state), self._left_behind(now, state))

    def _overtaken(self, now: float, state: QueueState) -> int:
        """The furthest place started at least a grace time ago: what still waits before it was overtaken."""
        self._heads.append((now, state.head))
        lost = 0
        while self._heads and self._heads[0][0] <= now - self._grace_s:
            lost = self._heads.popleft()[1]
        if lost:
            self._heads.appendleft((now - self._grace_s, lost))
        return lost

    def _left_behind(self, now: float, state: QueueState) -> int:
        """The last place given out when the queue ran empty, once it has been empty for a grace time."""
        if state.messages:
            self._empty_since = None
            return 0
        if self._empty_since is None:
            self._empty_since = (now, state.seq)
        since, seq = self._empty_since
        if now - since < self._grace_s:
            return 0
        self._empty_since = (now, state.seq)
        return seq


@dataclass
class Reconciler:
    """One pass after the other; across workers a Redis lock lets one pass run at a time."""

    ledger: Ledger
    sender: Sender
    client: RedisClient
    every_s: float
    places: dict[str, LostPlaces]

    def run_once(self) -> int:
        """Send again what has to be; returns how many messages that were."""
        with self._alone() as alone:
            if not alone:
                return 0
            return self._expired_leases() + sum(self._lost_messages(queue) for queue in QUEUES)

    def _expired_leases(self) -> int:
        messages = [self.ledger.requeue(job_id) for job_id in self.ledger.expired()]
        return self._send(m for m in messages if m)

    def _lost_messages(self, queue: str) -> int:
        lost = self.places[queue].observe(self.ledger.queue_state(queue))
        waiting = self.ledger.waiting_up_to(queue, lost) if lost else []
        messages = [self.ledger.resend(job_id, queue, place) for job_id, place in waiting]
        return self._send(m for m in messages if m)

    def _send(self, messages: Iterable[Resend]) -> int:
        count = 0
        for message in messages:
            logger.warning("Sending a job again", extra={"job_id": message.job_id, "queue": message.queue})
            self.sender.send_again(message)
            count += 1
        return count

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold the reconcilers' lock for one pass, if it is free; it frees itself when its holder dies."""
        lock = self.client.lock(_LOCK, timeout=max(30.0, 5 * self.every_s), blocking=False)
        held = bool(lock.acquire())
        try:
            yield held
        finally:
            if held:
                _give_back(lock)


def _give_back(lock: Lock) -> None:
    try:
        lock.release()
    except (redis.RedisError, RedisUnavailable):
        logger.warning("The reconcilers' lock could not be given back; it frees itself")
