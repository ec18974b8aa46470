"""The words of the ledger's listed jobs, kept in Flower's memory: a search reads from Redis only what it shows.

Reading ten thousand records takes half a second; looking for a word in as many strings takes two milliseconds. The
lists grow at one end, so that what is new in them is found by its score. What a search finds is read anew: an entry may
be a job that was tried again since.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from tasks.connection import RedisClient
from tasks.kinds import title_of
from tasks.ledger.keys import closed_key, since_key
from tasks.ledger.operations import Operations
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.periodic import PeriodicThread
from tasks.shares import ALL_QUEUES

__all__ = ["MOST", "Entry", "JobIndex", "Wanted"]

MOST: Final = 10_000  # of each list, the newest; the ledger keeps as many that have ended
_RUNNING: Final = 1_000
_EVERY_S: Final = 2.0
_READ_TOGETHER: Final = 500
_SHOWN_TOGETHER: Final = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """What a job is found by: its `words` in lower case, and when it was submitted and when it was last heard of (its
    end, once it has ended), in seconds since the epoch."""

    job_id: str
    state: JobState
    words: str
    worker: str
    collection: str
    submitted_at: float
    at: float

    @classmethod
    def of(cls, record: JobRecord) -> Entry:
        said = (
            record.job_id, record.asset_id, record.name, record.error_code, record.worker, record.task,
            title_of(record.task), record.queue,
        )  # fmt: skip
        words = "\n".join(word for word in said if word).lower()
        at = record.finished_at or record.submitted_at
        return cls(record.job_id, record.state, words, record.worker or "", record.collection, record.submitted_at, at)


@dataclass(frozen=True)
class Wanted:
    """What is searched for: `text` in any of a job's words, a state, a worker, a collection ("" for all), and the time
    in which it was submitted or ended, in seconds since the epoch."""

    text: str = ""
    state: str = ""
    worker: str = ""
    collection: str = ""
    since: float | None = None
    until: float | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether a job is one of those."""
        return (
            self.text.lower() in entry.words
            and self.state in ("", entry.state)
            and self.worker in ("", entry.worker)
            and self.collection in ("", entry.collection)
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.submitted_at <= self.until)
        )


class JobIndex:
    """Finds jobs in the ledger's lists; see the module. Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient, operations: Operations) -> None:
        self._client = client
        self._operations = operations
        keys = [*map(since_key, ALL_QUEUES), *(closed_key(state) for state in JobState if state.closed)]
        self._lists = [_Listed(key) for key in keys]
        self._lock = threading.Lock()
        self._thread = PeriodicThread("job-index", _EVERY_S, self.refresh, at_once=True)

    def start(self) -> None:
        self._thread.start()

    def refresh(self) -> None:
        """Read what is new in the lists."""
        with self._lock:
            pipe = self._client.pipeline(transaction=False)
            for listed in self._lists:
                listed.ask(pipe)
            answers = pipe.execute()
            for listed, oldest, newest in zip(self._lists, answers[::2], answers[1::2], strict=True):
                self._read(listed, listed.learn(oldest, newest))

    def search(self, wanted: Wanted) -> Iterator[JobRecord]:
        """Jobs that fit, as Redis has them now, newest first."""
        self.refresh()
        running = self._operations.jobs(JobState.RUNNING, _RUNNING) if wanted.state in ("", JobState.RUNNING) else []
        found = [entry for entry in [*map(Entry.of, running), *self._known()] if wanted.fits(entry)]
        ordered = iter(dict.fromkeys(entry.job_id for entry in sorted(found, key=lambda entry: -entry.at)))
        while some := list(islice(ordered, _SHOWN_TOGETHER)):
            records = self._operations.records(some)
            yield from (record for record in records if wanted.fits(Entry.of(record)))

    def _known(self) -> list[Entry]:
        with self._lock:
            return [entry for listed in self._lists for entry in listed.entries.values()]

    def _read(self, listed: _Listed, job_ids: list[str]) -> None:
        jobs = iter(job_ids)
        while some := list(islice(jobs, _READ_TOGETHER)):
            listed.entries |= {record.job_id: Entry.of(record) for record in self._operations.records(some)}


@dataclass
class _Listed:
    """A sorted set of job ids by time (ms), and what is known of its newest members.

    Attributes:
        scores: of the known members.
        incomplete: whether an older member came back, as a job does that is put off while a service is away.
    """

    key: str
    scores: dict[str, float] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    incomplete: bool = True

    def ask(self, pipe: Any) -> None:
        """Ask for the oldest member, and for those that came since the last time."""
        since = "-inf" if self.incomplete else max(self.scores.values(), default="-inf")
        pipe.zrange(self.key, 0, 0, withscores=True)
        pipe.zrange(self.key, "+inf", since, desc=True, byscore=True, offset=0, num=MOST, withscores=True)

    def learn(self, oldest: list[tuple[str, float]], newest: list[tuple[str, float]]) -> list[str]:
        """Take the answers; returns the jobs that have to be read."""
        fresh = [(job_id, score) for job_id, score in reversed(newest) if self.scores.get(job_id) != score]
        for job_id, score in fresh:
            self._forget(job_id)
            self.scores[job_id] = score
        first = oldest[0][1] if oldest else float("inf")
        gone = [job_id for job_id, score in self.scores.items() if score < first]
        by_age = sorted(self.scores, key=self.scores.__getitem__) if len(self.scores) > MOST else []
        for job_id in {*gone, *by_age[: len(by_age) - MOST]}:
            self._forget(job_id)
        self.incomplete = len(self.scores) < MOST and first < min(self.scores.values(), default=first)
        return [job_id for job_id, _ in fresh if job_id in self.scores]

    def _forget(self, job_id: str) -> None:
        self.scores.pop(job_id, None)
        self.entries.pop(job_id, None)
