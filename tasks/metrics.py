"""Figures that workers publish and everybody reads: histograms of how long stages take, outcomes, and failures.

Kept in Redis, twice: in slots of ten seconds that expire, for "the last minutes", and as totals since the beginning,
for Prometheus. Both are hashes of counters that all workers add to, so a sum over workers needs no summing, and a
restart of whoever reads loses nothing. Their size is bounded by stages and buckets, not by jobs.

    aii:metrics:{slot}, aii:metrics:total    hash: see Counters
    aii:failures                             hash: error code → the last failure, as JSON
    aii:latest                               list: the last activations' job ids, newest first
"""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from tasks.connection import named_errors

__all__ = ["BOUNDS_MS", "Counters", "Failure", "Histogram", "Metrics"]

_RATIO: Final = 1.07  # neighbouring bounds: a quantile is right to a few percent
BOUNDS_MS: Final = tuple(0.02 * _RATIO**n for n in range(240))  # to 210 seconds
SLOT_S: Final = 10
_KEEP_S: Final = 1_800
_LATEST: Final = 12
_PREFIX: Final = "aii:metrics:"
_TOTAL: Final = f"{_PREFIX}total"
_FAILURES: Final = "aii:failures"
_LAST: Final = "aii:latest"


@dataclass
class Histogram:
    """Durations in buckets: `counts[i]` of them were at most ``BOUNDS_MS[i]``, and more than the bound before."""

    counts: Counter[int] = field(default_factory=Counter)
    sum_ms: float = 0.0

    @property
    def count(self) -> int:
        return self.counts.total()

    @property
    def mean_ms(self) -> float:
        return self.sum_ms / self.count if self.count else 0.0

    def quantile_ms(self, share: float) -> float | None:
        """The duration that a share (0..1) of all stayed below, interpolated in its bucket; None when there is none."""
        wanted, before = share * self.count, 0
        for bucket in sorted(self.counts):
            if before + self.counts[bucket] >= wanted and self.counts[bucket]:
                low = BOUNDS_MS[bucket - 1] if bucket else 0.0
                high = BOUNDS_MS[min(bucket, len(BOUNDS_MS) - 1)]
                return low + (high - low) * (wanted - before) / self.counts[bucket]
            before += self.counts[bucket]
        return None


@dataclass
class Counters:
    """What was counted in some time.

    Attributes:
        stages: histograms by task and stage.
        outcomes: jobs by task and status.
        failures: failed jobs by error code.
    """

    stages: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def observe(self, task: str, stage: str, ms: float) -> None:
        histogram = self.stages.setdefault((task, stage), Histogram())
        histogram.counts[bisect.bisect_left(BOUNDS_MS, ms)] += 1
        histogram.sum_ms += ms

    def add(self, other: Counters) -> None:
        for key, histogram in other.stages.items():
            mine = self.stages.setdefault(key, Histogram())
            mine.counts.update(histogram.counts)
            mine.sum_ms += histogram.sum_ms
        self.outcomes.update(other.outcomes)
        self.failures.update(other.failures)

    def stage(self, task: str, stage: str) -> Histogram:
        """The histogram of one stage, empty when nothing was observed."""
        return self.stages.get((task, stage), Histogram())

    def fields(self) -> Iterable[tuple[str, int]]:
        """As fields of a hash, with what to add to each; sums in whole microseconds."""
        for (task, stage), histogram in self.stages.items():
            yield f"sum|{task}|{stage}", round(1000 * histogram.sum_ms)
            for bucket, count in histogram.counts.items():
                yield f"in|{task}|{stage}|{bucket}", count
        for (task, status), count in self.outcomes.items():
            yield f"out|{task}|{status}", count
        for code, count in self.failures.items():
            yield f"fail|{code}", count

    def read(self, stored: Mapping[str, str]) -> None:
        """Add what such a hash holds."""
        for name, value in stored.items():
            kind, *parts = name.split("|")
            if kind == "sum":
                self.stages.setdefault((parts[0], parts[1]), Histogram()).sum_ms += int(value) / 1000
            elif kind == "in":
                self.stages.setdefault((parts[0], parts[1]), Histogram()).counts[int(parts[2])] += int(value)
            elif kind == "out":
                self.outcomes[parts[0], parts[1]] += int(value)
            elif kind == "fail":
                self.failures[parts[0]] += int(value)


@dataclass(frozen=True)
class Failure:
    """The last failure with an error code; `at` in seconds since the epoch."""

    code: str
    message: str
    job_id: str
    at: float


class Metrics:
    """Both sides. Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: redis.Redis, address: str) -> None:
        self._client = client
        self._address = address

    def publish(self, counted: Counters, failures: Sequence[Failure], activations: Sequence[str]) -> None:
        """Add what one worker counted since it last published, in one round trip."""
        with named_errors(self._address):
            slot = f"{_PREFIX}{self._now_s() // SLOT_S}"
            pipe = self._client.pipeline(transaction=False)
            for name, amount in counted.fields():
                pipe.hincrby(slot, name, amount)
                pipe.hincrby(_TOTAL, name, amount)
            pipe.expire(slot, _KEEP_S)
            for failure in failures:
                pipe.hset(_FAILURES, failure.code, json.dumps(vars(failure)))
            if activations:
                pipe.lpush(_LAST, *activations)
                pipe.ltrim(_LAST, 0, _LATEST - 1)
            pipe.execute()

    def last(self, seconds: int) -> Counters:
        """What all workers counted in about the last `seconds` (at most half an hour), to a slot."""
        with named_errors(self._address):
            now = self._now_s() // SLOT_S
            pipe = self._client.pipeline(transaction=False)
            for slot in range(now - seconds // SLOT_S, now + 1):
                pipe.hgetall(f"{_PREFIX}{slot}")
            return _summed(pipe.execute())

    def total(self) -> Counters:
        """What was counted since Redis was last emptied."""
        with named_errors(self._address):
            return _summed([self._client.hgetall(_TOTAL)])

    def failures(self) -> list[Failure]:
        """The last failure with each code, newest first."""
        with named_errors(self._address):
            stored: Any = self._client.hvals(_FAILURES)
        return sorted((Failure(**json.loads(text)) for text in stored), key=lambda f: -f.at)

    def latest(self) -> list[str]:
        """Job ids of the last activations, newest first."""
        with named_errors(self._address):
            return [str(job_id) for job_id in self._client.lrange(_LAST, 0, -1)]

    def _now_s(self) -> int:
        """On Redis' clock, which all workers share."""
        seconds, _ = self._client.time()
        return int(seconds)


def _summed(hashes: Iterable[Mapping[str, str]]) -> Counters:
    counters = Counters()
    for stored in hashes:
        counters.read(stored)
    return counters
