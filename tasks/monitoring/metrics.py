"""Figures that workers publish: histograms of how long stages take, outcomes, and failures.

Kept in Redis, twice: in slots of ten seconds that live for forty minutes, and as totals since the beginning, for
Prometheus. Both are hashes of counters that all workers add to, so a sum over workers needs no summing, and a restart
of a reader loses nothing. Their size is bounded by stages and buckets, not by jobs.

    aii:metrics:2:{slot}, aii:metrics:2:total    hash: see Counters; a slot also says how many jobs waited then
    aii:failures                                 hash: error code → the last failure, as JSON
    aii:latest, aii:latest:queries               lists: job ids of the last activations and queries, newest first
"""

from __future__ import annotations

import bisect
import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tasks.connection import RedisClient
from tasks.monitoring.paper import PAPER

__all__ = ["BOUNDS_MS", "COARSE_MS", "EXPOSED_MS", "SLOT_S", "Counters", "Failure", "Histogram", "Metrics", "Slot"]

_RATIO: Final = 1.07  # of neighbouring bounds in 0.1.0, whose counts are read too
_PARTS: Final = 4  # of such a step now: a quantile is right to 1.7 %, one duration to 0.9 %
_OTHERS_MS: Final = (0.1, 0.2, 0.7, 1.5, 3, 6, 10, 20, 30, 60, 100, 200, 500, 1_000, 3_000, 10_000, 60_000)
# Fewer bounds for Prometheus, where each is a time series; around the paper's they are close.
EXPOSED_MS: Final = tuple(sorted({*_OTHERS_MS, *(figure.ms for figure in PAPER)}))
# Those are bounds here too, so that "at most 39.8 ms" is counted, not estimated. To 210 seconds.
COARSE_MS: Final = tuple(sorted({*(0.02 * _RATIO**n for n in range(240)), *EXPOSED_MS}))
BOUNDS_MS: Final[tuple[float, ...]] = tuple(
    sorted({*(0.02 * _RATIO ** (n / _PARTS) for n in range(239 * _PARTS)), *COARSE_MS})
)
SLOT_S: Final = 10
_KEEP_S: Final = 2_400  # half an hour, and time to make a point of it; see tasks.monitoring.series
_LATEST: Final = 12
_PSNR_BOUND: Final = 1_000  # tenths of a dB
_PREFIX: Final = "aii:metrics:2:"
_TOTAL: Final = f"{_PREFIX}total"
_FAILURES: Final = "aii:failures"
_FAILURES_KEPT_S: Final = 86_400
_LAST: Final = "aii:latest"
_LAST_QUERIES: Final = "aii:latest:queries"


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
            inside = self.counts[bucket]
            if inside and before + inside >= wanted:
                low = BOUNDS_MS[bucket - 1] if bucket else 0.0
                high = BOUNDS_MS[min(bucket, len(BOUNDS_MS) - 1)]
                return low + (high - low) * max(wanted - before - 0.5, 0.0) / inside  # they are spread evenly in it
            before += inside
        return None


@dataclass
class Counters:
    """What was counted in some time.

    Attributes:
        stages: histograms by task and stage.
        outcomes: jobs by task and status.
        failures: failed jobs by error code.
        psnr: published images by their PSNR in tenths of a dB.
        steps: what the optimiser took, summed over images, by :data:`tasks.monitoring.paper.MODES`.
        parts: jobs by ``("worker" or "collection", its name, task)``, and microseconds of the device by
            ``("worker", its name, "device_us")``. In slots only: workers come and go, and totals stay for ever.
    """

    stages: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    psnr: Counter[int] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    parts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def observe(self, task: str, stage: str, ms: float) -> None:
        histogram = self.stages.setdefault((task, stage), Histogram())
        histogram.counts[bisect.bisect_left(BOUNDS_MS, ms)] += 1
        histogram.sum_ms += ms

    def observe_psnr(self, psnr_db: float) -> None:
        self.psnr[min(max(round(10 * psnr_db), 0), _PSNR_BOUND)] += 1

    def add(self, other: Counters) -> None:
        for key, histogram in other.stages.items():
            mine = self.stages.setdefault(key, Histogram())
            mine.counts.update(histogram.counts)
            mine.sum_ms += histogram.sum_ms
        self.outcomes.update(other.outcomes)
        self.failures.update(other.failures)
        self.psnr.update(other.psnr)
        self.steps.update(other.steps)
        self.parts.update(other.parts)

    def stage(self, task: str, stage: str) -> Histogram:
        """The histogram of one stage, empty when nothing was observed."""
        return self.stages.get((task, stage), Histogram())

    def fields(self) -> Iterable[tuple[str, int]]:
        """As fields of a hash, with what to add to each; sums in whole microseconds."""
        for (task, stage), histogram in self.stages.items():
            yield f"sum|{task}|{stage}", round(1000 * histogram.sum_ms)
            for bucket, count in histogram.counts.items():
                yield f"bin|{task}|{stage}|{bucket}", count
        for (task, status), count in self.outcomes.items():
            yield f"out|{task}|{status}", count
        for code, count in self.failures.items():
            yield f"fail|{code}", count
        for tenths, count in self.psnr.items():
            yield f"psnr|{tenths}", count
        for mode, count in self.steps.items():
            yield f"steps|{mode}", count

    def part_fields(self) -> Iterable[tuple[str, int]]:
        """The same of what is not kept in totals."""
        for (kind, name, what), count in self.parts.items():
            yield f"part|{kind}|{name}|{what}", count

    def read(self, stored: Mapping[str, str]) -> None:
        """Add what such a hash holds; what cannot be read, of another version perhaps, is left out."""
        for name, value in stored.items():
            try:  # a context manager for each of some thousand fields would take a third of the time
                self._read(name, value)
            except (ValueError, IndexError):
                continue

    def _read(self, name: str, value: str) -> None:
        kind, *parts = name.split("|")
        if kind == "sum":
            self.stages.setdefault((parts[0], parts[1]), Histogram()).sum_ms += int(value) / 1000
        elif kind in ("bin", "in"):
            bucket = int(parts[2]) if kind == "bin" else _of_coarse(int(parts[2]))
            self.stages.setdefault((parts[0], parts[1]), Histogram()).counts[bucket] += int(value)
        elif kind == "out":
            self.outcomes[parts[0], parts[1]] += int(value)
        elif kind == "fail":
            self.failures[parts[0]] += int(value)
        elif kind == "psnr":
            self.psnr[int(parts[0])] += int(value)
        elif kind == "steps":
            self.steps[parts[0]] += int(value)
        elif kind == "part":
            self.parts[parts[0], parts[1], parts[2]] += int(value)


@dataclass(frozen=True)
class Failure:
    """The last failure with an error code; `at` in seconds since the epoch."""

    code: str
    message: str
    job_id: str
    at: float


@dataclass(frozen=True)
class Slot:
    """What was counted in ten seconds, and how many jobs waited in each queue, if that was recorded."""

    start_s: int
    counted: Counters
    waiting: dict[str, int]


# KEYS slot, total; ARGV keep_s, how many of the arguments that follow are for the slot only; field, amount, …
# Read, added up and written in two commands for some hundred fields: one command for each would be most of what an
# image costs Redis. `unpack` has a bound. What is no number is begun again.
_PUBLISH: Final = """
local function add(key, first)
  for start = first, #ARGV, 1000 do
    local fields, changed = {}, {}
    for i = start, math.min(start + 998, #ARGV - 1), 2 do table.insert(fields, ARGV[i]) end
    local known = redis.call('HMGET', key, unpack(fields))
    for n, name in ipairs(fields) do
      local sum = (tonumber(known[n] or 0) or 0) + ARGV[start + 2 * n - 1]
      changed[2 * n - 1], changed[2 * n] = name, string.format('%.0f', sum)
    end
    redis.call('HSET', key, unpack(changed))
  end
end
add(KEYS[1], 3)
add(KEYS[2], 3 + ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class Metrics:
    """Both sides. Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._publish = client.register_script(_PUBLISH)
        self._over: dict[int, Slot] = {}
        self._lock = threading.Lock()

    def publish(
        self,
        counted: Counters,
        failures: Sequence[Failure],
        activations: Sequence[str],
        queries: Sequence[str] = (),
    ) -> None:
        """Add what one worker counted since it last published: all of it or, when an error is raised, nothing."""
        pipe = self._client.pipeline(transaction=True)
        passing = [word for pair in counted.part_fields() for word in pair]
        fields = [word for pair in counted.fields() for word in pair]
        slot = _slot_key(self.now_s() // SLOT_S)
        self._publish(keys=[slot, _TOTAL], args=[_KEEP_S, len(passing), *passing, *fields], client=pipe)
        for failure in failures:
            pipe.hset(_FAILURES, failure.code, json.dumps(vars(failure)))
        for key, job_ids in ((_LAST, activations), (_LAST_QUERIES, queries)):
            if job_ids:
                pipe.lpush(key, *job_ids)
                pipe.ltrim(key, 0, _LATEST - 1)
        pipe.execute()

    def note_waiting(self, waiting: Mapping[str, int]) -> None:
        """Store how many jobs wait in each queue now."""
        slot = _slot_key(self.now_s() // SLOT_S)
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(slot, mapping={f"waiting|{queue}": count for queue, count in waiting.items()})
        pipe.expire(slot, _KEEP_S).execute()

    def slots(self, seconds: int) -> tuple[float, list[Slot]]:
        """Now, on Redis' clock, and the slots that cover at least the last `seconds` (at most half an hour) until now,
        oldest first. Those that are over are read once."""
        with self._lock:
            now = self.now_s()
            first, current = int(now - seconds) // SLOT_S, int(now) // SLOT_S
            unread = [n for n in range(first, current + 1) if n not in self._over]
            known = self._over | {slot.start_s // SLOT_S: slot for slot in self.read(unread)}
            # A worker may still be adding to the one before the current.
            self._over = {n: slot for n, slot in known.items() if first <= n < current - 1}
            return now, [known[n] for n in range(first, current + 1)]

    def read(self, numbers: Sequence[int]) -> list[Slot]:
        """Some slots by their numbers, that is seconds since the epoch by ten."""
        pipe = self._client.pipeline(transaction=False)
        for number in numbers:
            pipe.hgetall(_slot_key(number))
        return [_slot_of(n, stored) for n, stored in zip(numbers, pipe.execute(), strict=True)]

    def total(self) -> Counters:
        """What was counted since Redis was last emptied."""
        counters = Counters()
        counters.read(self._client.hgetall(_TOTAL))
        return counters

    def outcomes(self, task: str, statuses: Sequence[str]) -> list[int]:
        """How many jobs of one task ended with each status, since Redis was last emptied."""
        return [int(n or 0) for n in self._client.hmget(_TOTAL, [f"out|{task}|{status}" for status in statuses])]

    def failures(self) -> list[Failure]:
        """The last failure with each code, newest first; of the last day."""
        since = self.now_s() - _FAILURES_KEPT_S
        stored: Any = self._client.hvals(_FAILURES)
        found = [failure for text in stored if (failure := _failure_of(text)) and failure.at > since]
        return sorted(found, key=lambda f: -f.at)

    def latest(self) -> list[str]:
        """Job ids of the last activations, newest first."""
        return [str(job_id) for job_id in self._client.lrange(_LAST, 0, -1)]

    def latest_queries(self) -> list[str]:
        """Job ids of the last queries, newest first."""
        return [str(job_id) for job_id in self._client.lrange(_LAST_QUERIES, 0, -1)]

    def now_s(self) -> float:
        """Seconds since the epoch on Redis' clock, which all workers share."""
        seconds, micros = self._client.time()
        return float(seconds + micros / 1e6)


def _of_coarse(bucket: int) -> int:
    """A bucket of 0.1.0: the last of those that it is cut into now."""
    return BOUNDS_MS.index(COARSE_MS[bucket]) if bucket < len(COARSE_MS) else len(BOUNDS_MS)


def _failure_of(text: str) -> Failure | None:
    """None for what is no such record, or one of another version."""
    try:
        failure = Failure(**json.loads(text))
        return failure if isinstance(failure.at, int | float) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _slot_key(number: float) -> str:
    return f"{_PREFIX}{int(number)}"


def _slot_of(number: int, stored: Mapping[str, str]) -> Slot:
    counted = Counters()
    counted.read(stored)
    waiting = {name.removeprefix("waiting|"): int(n) for name, n in stored.items() if name.startswith("waiting|")}
    return Slot(number * SLOT_S, counted, waiting)
