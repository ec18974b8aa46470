"""The reconciler: finds jobs that no worker will do, and sends their messages again.

Three kinds of jobs are found: those whose lease ran out (their worker died), those that were put off until now, and
queued ones whose message is gone. A
queue is first in, first out, so a job that merely waits is never taken for lost. It is lost only when jobs submitted
*after* it have started, or the queue has been empty, and a grace time has passed since.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import redis
from redis.lock import Lock

from tasks.app import Sender
from tasks.connection import RedisClient
from tasks.errors import RedisUnavailable
from tasks.ledger.records import QueuePlaces, Resend
from tasks.ledger.recovery import Recovery
from tasks.shares import ALL_QUEUES
from workers.delivery.set_aside import SetAside

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

    def observe(self, state: QueuePlaces) -> int:
        """Take note of the queue's state; returns the last lost place, 0 when there is none."""
        now = self._clock()
        return max(self._overtaken(now, state), self._left_behind(now, state))

    def _overtaken(self, now: float, state: QueuePlaces) -> int:
        """The furthest place started at least a grace time ago: what still waits before it was overtaken."""
        self._heads.append((now, state.head))
        lost = 0
        while self._heads and self._heads[0][0] <= now - self._grace_s:
            lost = self._heads.popleft()[1]
        if lost:
            self._heads.appendleft((now - self._grace_s, lost))
        return lost

    def _left_behind(self, now: float, state: QueuePlaces) -> int:
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
    """One pass after the other; across workers a Redis lock lets one pass run at a time. Each queue has a judge of its
    own, made by `lost_places`."""

    recovery: Recovery
    sender: Sender
    client: RedisClient
    every_s: float
    lost_places: Callable[[], LostPlaces]
    set_aside: SetAside

    def __post_init__(self) -> None:
        self._places = defaultdict[str, LostPlaces](self.lost_places)

    def run_once(self) -> int:
        """Send again what has to be; returns how many messages that were."""
        with self._alone() as alone:
            if not alone:
                return 0
            states = self.recovery.queue_states(ALL_QUEUES)
            return self._expired_leases() + sum(self._of_queue(queue, state) for queue, state in states.items())

    def _expired_leases(self) -> int:
        return sum(self._send(job_id, self.recovery.requeue) for job_id in self.recovery.expired())

    def _of_queue(self, queue: str, state: QueuePlaces) -> int:
        """What one queue lacks; what cannot be read of it keeps no other queue waiting."""
        try:
            return self._put_off(queue, state.due) + self._lost_messages(queue, state)
        except RedisUnavailable:
            raise
        except Exception:
            logger.exception("The queue %s could not be searched for lost jobs", queue)
            return 0

    def _put_off(self, queue: str, due: Sequence[str]) -> int:
        release = partial(self.recovery.release, queue=queue)
        return sum(self._send(job_id, release) for job_id in due)

    def _lost_messages(self, queue: str, state: QueuePlaces) -> int:
        lost = self._places[queue].observe(state)
        waiting = self.recovery.waiting_up_to(queue, lost) if lost else []
        resend = partial(self.recovery.resend, queue=queue)
        return sum(self._send(job_id, partial(resend, place=place)) for job_id, place in waiting)

    def _send(self, job_id: str, move: Callable[[str], Resend | None]) -> bool:
        """Move one job in the ledger and send its message; a record that no message can be made of is set aside."""
        try:
            message = move(job_id)
            if message is None:
                return False
            logger.info("Sending a job again", extra={"job_id": job_id, "queue": message.queue})
            self.sender.send_again(message)
            return True
        except RedisUnavailable:
            raise
        except Exception as error:
            self._give_up(
                job_id, f"The ledger's record of job {job_id} cannot be used ({type(error).__name__}: {error})"
            )
            return False

    def _give_up(self, job_id: str, reason: str) -> None:
        held = self.recovery.set_aside(job_id, reason)
        self.set_aside.add("ledger", reason, json.dumps({"job_id": job_id, **held}).encode())

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
