"""Figures over hours and days: points that workers make of the slots of ten seconds before these expire.

A point is a few hundred bytes of JSON, so six hours and a week take some hundred kilobytes of Redis, whatever was done
in them. One worker makes each point: it makes a quantile of every duration of the time, not of other quantiles.

    aii:metrics:2:series:{seconds}           hash: time from which on → the point
    aii:metrics:2:rolled:{seconds}:{time}    string: the worker that makes this point
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from tasks.connection import RedisClient
from tasks.monitoring.metrics import SLOT_S, Counters, Metrics, Slot
from tasks.monitoring.overview import Point
from tasks.names import TASK_ACTIVATE, TASK_QUERY

__all__ = ["RANGES", "Range", "Series", "done", "point_of", "summed"]

_PREFIX: Final = "aii:metrics:2"
_SETTLED_S: Final = 20  # a worker may add to a slot for some seconds after its end
_CLAIM_S: Final = 3_600


@dataclass(frozen=True)
class Range:
    """A time that is kept: how long, in points of how many seconds."""

    name: str
    seconds: int
    step_s: int

    @property
    def key(self) -> str:
        return f"{_PREFIX}:series:{self.step_s}"


RANGES: Final = {r.name: r for r in (Range("6h", 6 * 3_600, 120), Range("7d", 7 * 86_400, 1_800))}


class Series:
    """Both sides. Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics

    def roll_up(self) -> int:
        """Make the points that are due and that no other worker makes; returns how many."""
        now = self._metrics.now_s()
        return sum(self._roll_up(kept, int(now - _SETTLED_S) // kept.step_s - 1, now) for kept in RANGES.values())

    def points(self, kept: Range) -> list[Point]:
        """Those of a range, oldest first."""
        since = self._metrics.now_s() - kept.seconds
        stored: dict[str, Any] = self._client.hgetall(kept.key)
        found = [point for text in stored.values() if (point := _point(text)) and point.at >= since]
        return sorted(found, key=lambda point: point.at)

    def _roll_up(self, kept: Range, number: int, now: float) -> int:
        start = number * kept.step_s
        claim = f"{_PREFIX}:rolled:{kept.step_s}:{start}"
        if not self._client.set(claim, "", nx=True, ex=_CLAIM_S):
            return 0
        slots = self._metrics.read(range(start // SLOT_S, (start + kept.step_s) // SLOT_S))
        point = point_of(start, kept.step_s, summed(slots), _most_waiting(slots))
        old = [field for field in self._client.hkeys(kept.key) if int(field) < now - kept.seconds - kept.step_s]
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(kept.key, str(start), point.model_dump_json())
        if old:
            pipe.hdel(kept.key, *old)
        pipe.execute()
        return 1


def point_of(at: int, seconds: int, counted: Counters, waiting: int | None) -> Point:
    """The figures of some seconds from `at` on."""
    optimise, query = counted.stage(TASK_ACTIVATE, "optimise"), counted.stage(TASK_QUERY, "total")
    return Point(
        at=at,
        seconds=seconds,
        images_per_s=round(done(counted, TASK_ACTIVATE) / seconds, 4),
        queries_per_s=round(done(counted, TASK_QUERY) / seconds, 4),
        failed=counted.failures.total(),
        optimise_p95_ms=optimise.quantile_ms(0.95),
        query_p95_ms=query.quantile_ms(0.95),
        waiting=waiting,
        workers=_rates(counted, "worker", seconds),
        collections=_rates(counted, "collection", seconds),
    )


def summed(slots: Iterable[Slot]) -> Counters:
    """What was counted in all of them."""
    counters = Counters()
    for slot in slots:
        counters.add(slot.counted)
    return counters


def done(counted: Counters, task: str) -> int:
    """Jobs of a task that ended well."""
    return sum(n for (which, status), n in counted.outcomes.items() if which == task and status != "failed")


def _rates(counted: Counters, kind: str, seconds: int) -> dict[str, float]:
    """Images and queries a second, by the name of a worker or a collection."""
    jobs: Counter[str] = Counter()
    for (which, name, what), count in counted.parts.items():
        if which == kind and what in (TASK_ACTIVATE, TASK_QUERY):
            jobs[name] += count
    return {name: round(count / seconds, 4) for name, count in sorted(jobs.items())}


def _most_waiting(slots: Sequence[Slot]) -> int | None:
    return max((sum(slot.waiting.values()) for slot in slots if slot.waiting), default=None)


def _point(text: str) -> Point | None:
    """None for one that another version wrote."""
    try:
        return Point.model_validate_json(text)
    except ValidationError:
        return None
