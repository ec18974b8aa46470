"""Jobs whose message has to be sent again, and records that no job can be made of.

A message has to be sent again when a worker died with the job or gave it back, when Redis lost it, or when the pause of
a job that was put off is over. Transitions are in :mod:`tasks.ledger.recovery_scripts`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from tasks.connection import RedisClient
from tasks.ledger import recovery_scripts
from tasks.ledger.keys import COUNTS, EVENTS, LEASES, head_key, job_key, later_key, open_key, seq_key, since_key
from tasks.ledger.records import QueuePlaces, Resend
from tasks.shares import ALL_QUEUES

__all__ = ["Recovery"]

logger = logging.getLogger(__name__)


class Recovery:
    """Thread-safe; every method raises RedisUnavailable when Redis cannot be used. Transitions are atomic."""

    def __init__(self, client: RedisClient, keep_closed_s: int) -> None:
        self._client = client
        self._keep_closed_s = keep_closed_s
        self._requeue = client.register_script(recovery_scripts.REQUEUE)
        self._resend = client.register_script(recovery_scripts.RESEND)
        self._release = client.register_script(recovery_scripts.RELEASE)
        self._set_aside = client.register_script(recovery_scripts.SET_ASIDE)

    def expired(self, limit: int = 500) -> list[str]:
        """Running jobs whose lease ran out."""
        now_ms = self._now_ms()
        return list(self._client.zrangebyscore(LEASES, "-inf", now_ms, start=0, num=limit))

    def requeue(self, job_id: str, token: str = "") -> Resend | None:
        """Put a running job back into its queue: one whose lease ran out, or one that the holder of `token` gives
        up. Raises ValueError for a job of an unknown queue."""
        queue = self._field(job_id, "queue")
        if queue is None:
            self._client.zrem(LEASES, job_id)
            return None
        if queue not in ALL_QUEUES:
            raise ValueError(f"unknown queue {queue[:80]!r}")
        keys = [job_key(job_id), LEASES, open_key(queue), seq_key(queue), COUNTS, since_key(queue)]
        return _resend_of(job_id, self._requeue(keys=keys, args=[job_id, token]))

    def queue_states(self, queues: Sequence[str], limit: int = 500) -> dict[str, QueuePlaces]:
        """All of them, but for those that cannot be read: their keys hold something else. Most share queues never had a
        job; of those no more is asked than that."""
        # Places first: with what is read of the messages after that, no job is taken for left behind too early.
        now_ms, places = self._now_ms_and_places(queues)
        used = {queue: (seq, head) for queue, (seq, head) in places.items() if seq or head}
        pipe = self._client.pipeline(transaction=True)
        for queue in used:
            pipe.llen(queue).zrangebyscore(later_key(queue), "-inf", now_ms, start=0, num=limit)
        answers = iter(pipe.execute(raise_on_error=False))
        read = {queue: _places_of(*used[queue], *islice(answers, 2)) for queue in used}
        found = {queue: read[queue] if queue in used else QueuePlaces(0, 0, 0) for queue in queues}
        if odd := [queue for queue, places in found.items() if places is None]:
            logger.error("The queues %s could not be searched for lost jobs", ", ".join(odd))
        return {queue: places for queue, places in found.items() if places}

    def _now_ms_and_places(self, queues: Sequence[str]) -> tuple[int, dict[str, tuple[Any, Any]]]:
        """Redis' time, and of each queue the last place given out and the furthest started: None without one, an
        exception for a key of another type."""
        keys = [key(queue) for queue in queues for key in (seq_key, head_key)]
        now, values = self._client.pipeline(transaction=False).time().mget(keys).execute()
        missing = [key for key, value in zip(keys, values, strict=True) if value is None]
        if missing and self._client.exists(*missing):  # MGET answers None for keys of another type as well
            pipe = self._client.pipeline(transaction=False)
            for key in keys:
                pipe.get(key)
            values = pipe.execute(raise_on_error=False)
        return _ms(now), dict(zip(queues, zip(values[::2], values[1::2], strict=True), strict=True))

    def waiting_up_to(self, queue: str, place: int, limit: int = 500) -> list[tuple[str, int]]:
        """Jobs still queued at or before a place, first come first: ``(job_id, place)``."""
        pairs: Iterable[tuple[str, float]] = self._client.zrangebyscore(
            open_key(queue), "-inf", place, start=0, num=limit, withscores=True
        )
        return [(job_id, int(score) if math.isfinite(score) else -1) for job_id, score in pairs]

    def resend(self, job_id: str, queue: str, place: int) -> Resend | None:
        """Give a queued job whose message is gone a new place; None when its state or place has changed."""
        keys = [job_key(job_id), open_key(queue), seq_key(queue), COUNTS]
        return _resend_of(job_id, self._resend(keys=keys, args=[job_id, place, queue]))

    def release(self, job_id: str, queue: str) -> Resend | None:
        """Give a job that was put off a new place in its queue; None when it has moved on meanwhile."""
        keys = [job_key(job_id), later_key(queue), open_key(queue), seq_key(queue)]
        return _resend_of(job_id, self._release(keys=keys, args=[job_id, queue]))

    def set_aside(self, job_id: str, reason: str) -> dict[str, str]:
        """Take a record that no job can be made of out of all lists, so that it is found no more; a job that can be
        read as one has failed. Returns what the record held."""
        lists = [key(queue) for queue in ALL_QUEUES for key in (open_key, since_key, later_key)]
        held = self._set_aside(
            keys=[job_key(job_id), EVENTS, LEASES, *lists], args=[job_id, reason, self._keep_closed_s]
        )
        return dict(zip(held[::2], held[1::2], strict=True))

    def _field(self, job_id: str, name: str) -> str | None:
        value = self._client.hget(job_key(job_id), name)
        return str(value) if value is not None else None

    def _now_ms(self) -> int:
        return _ms(self._client.time())


def _resend_of(job_id: str, answer: Any) -> Resend | None:
    return Resend(job_id, *answer) if answer else None


def _ms(time: tuple[int, int]) -> int:
    """Of seconds and microseconds."""
    return int(time[0]) * 1000 + int(time[1]) // 1000


def _places_of(seq: Any, head: Any, messages: Any, due: Any) -> QueuePlaces | None:
    try:
        return QueuePlaces(int(messages), int(seq or 0), int(head or 0), tuple(due))
    except (TypeError, ValueError):
        return None
