"""Where faults are made: a stack of its own, links to its services, workers, and what a scenario does with them."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil

from producer import Job, Producer
from tasks.app import Sender, create_app
from tasks.connection import connect_redis, redis_address
from tasks.errors import RedisUnavailable
from tasks.ledger.states import JobState
from tasks.messages import ActivationOptions
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.faults.fleet import Fleet
from tests.link import Link
from tests.photographs import crops
from tests.stack import running_stack, settings_of
from tests.waiting import LIMIT_S

__all__ = ["QUICK", "Bench", "Outcome", "images", "running_bench"]

# Killed workers' jobs come back soon; a live worker on a busy machine still renews its lease in time.
QUICK: Final = {"AII_LEASE_S": "6", "AII_GRACE_S": "2", "AII_RECONCILE_EVERY_S": "0.5"}
_HANGING_S: Final = LIMIT_S  # without any job ending


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to.

    Attributes:
        jobs: ids of the accepted jobs, which the oracle looks at.
        failing: how many of these have to fail, by error code; None where any may.
        recovered_s: seconds from the end of the fault until the jobs that it met had ended.
        answers: of scenarios without jobs: how many answers were looked at, and which were wrong.
    """

    jobs: Sequence[str] = ()
    failing: Mapping[str, int] | None = field(default_factory=dict)
    recovered_s: float | None = None
    answers: int = 0
    wrong: Sequence[str] = ()
    note: str = ""


@cache
def images(count: int = 48) -> Sequence[bytes]:
    """Small photographs."""
    return crops(count, side=96)


@dataclass
class Bench:
    """One stack with links to it. Workers reach its services through the links only, the tests directly."""

    state: Path
    settings: Settings
    redis: Link
    s3: Link
    producer: Producer
    store: ObjectStore
    fleet: Fleet
    sender: Sender
    supervises: bool = False
    _names: Iterator[int] = field(default_factory=itertools.count)

    @property
    def lease_s(self) -> float:
        return float(self.fleet.environment.get("AII_LEASE_S", self.settings.lease_s))

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def activate(self, image: bytes, asset_id: str | None = None, **more: Any) -> Job:
        """A job of its own, whatever was activated before."""
        return self.producer.activate(image, asset_id=asset_id or self.new_name(), again=True, **more)

    def new_name(self) -> str:
        return f"asset-{next(self._names)}"

    def submit(self, count: int, steps: int = 10) -> list[Job]:
        options = ActivationOptions(steps=steps)
        pictures = images()
        return [self.activate(pictures[i % len(pictures)], options=options) for i in range(count)]

    def states(self, jobs: Sequence[Job]) -> list[JobState | None]:
        """The jobs' states; none is known while Redis is away."""
        with suppress(RedisUnavailable):
            return self.producer.ledger.states([job.job_id for job in jobs])
        return [None] * len(jobs)

    def running(self, jobs: Sequence[Job]) -> list[Job]:
        states = self.states(jobs)
        return [job for job, state in zip(jobs, states, strict=True) if state is JobState.RUNNING]

    def ended(self, jobs: Sequence[Job]) -> int:
        return sum(state is not None and state.closed for state in self.states(jobs))

    def until(self, condition: Callable[[], object], why: str) -> float:
        """Wait for a condition; returns the seconds it took. Fails when it is not met in :data:`LIMIT_S`."""
        began = time.monotonic()
        while not condition():
            if self.supervises:
                self.fleet.replace_dead()
            assert time.monotonic() - began < LIMIT_S, why
            time.sleep(0.05)
        return time.monotonic() - began

    def until_running(self, jobs: Sequence[Job]) -> list[Job]:
        """Wait until some of the jobs run; returns those."""
        held: list[Job] = []
        self.until(lambda: held.extend(self.running(jobs)) or held, "no job was started")
        return held

    def until_ended(self, jobs: Sequence[Job], count: int | None = None, since: float | None = None) -> float:
        """Wait for the end of so many of these jobs, by default all; a job that never ends is the oracle's matter.

        Returns the seconds from `since` (of `time.monotonic`), by default from the call, until then.
        """
        wanted = len(jobs) if count is None else count
        progressed = time.monotonic()
        began = progressed if since is None else since
        ended = 0
        while (now := self.ended(jobs)) < wanted and time.monotonic() - progressed < _HANGING_S:
            if now > ended:
                ended, progressed = now, time.monotonic()
            if self.supervises:
                self.fleet.replace_dead()
            time.sleep(0.05)
        return time.monotonic() - began

    def submit_running(self, count: int) -> tuple[list[Job], list[Job]]:
        """Submit jobs until a batch of `count` is found at work: all of them, and those that run.

        A batch may be over before anyone asks, where workers are fast and this process is not.
        """
        jobs: list[Job] = []
        began = time.monotonic()
        while time.monotonic() - began < LIMIT_S:
            batch = self.submit(count)
            jobs += batch
            self.until(lambda: self.running(batch) or self.ended(batch) == count, "no job was started")  # noqa: B023
            if held := self.running(batch):
                return jobs, held
        raise AssertionError("no job was found at work")

    def send(self, job: Job) -> None:
        """The message of a job once more."""
        request = job.request
        self.sender.send(job.job_id, request.task, request.queue, request.model_dump(mode="json"))

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Workers that end are replaced meanwhile."""
        self.supervises = True
        try:
            yield
        finally:
            self.supervises = False

    # ── services ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def redis_pid(self) -> int:
        with connect_redis(self.settings) as client:
            return int(client.info("server")["process_id"])

    def s3_pid(self) -> int:
        address = self.settings.s3_endpoint
        return next(p.pid for p in psutil.process_iter(["cmdline"]) if address in (p.info["cmdline"] or ()))

    @contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """A process that is frozen meanwhile."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def until_redis_answers(self) -> None:
        def answers() -> bool:
            with suppress(RedisUnavailable), connect_redis(self.settings) as client:
                return bool(client.ping())
            return False

        self.until(answers, "Redis does not come back")


@contextmanager
def running_bench(state: Path, terms: Mapping[str, str] = QUICK) -> Iterator[Bench]:
    """Start a stack in the folder `state`; workers run under the settings `terms`."""
    with ExitStack() as stack:
        environment = stack.enter_context(running_stack(state))
        settings = settings_of(state)
        redis = Link(redis_address(settings))
        s3 = Link(settings.s3_endpoint)
        password = settings.redis_url.get_secret_value().rpartition("@")[0]
        through = {"AII_REDIS_URL": f"{password}@{redis.address}/0", "AII_S3_ENDPOINT": s3.address}
        given = {name: value for name, value in environment.items() if name.startswith("AII_")} | through | dict(terms)
        producer = stack.enter_context(Producer.connect(settings))
        store = ObjectStore.connect(settings)
        store.ensure_buckets()
        fleet = Fleet(settings, given, state)
        for end in (redis.close, s3.close, fleet.end):
            stack.callback(end)
        sender = Sender(create_app(settings), settings)
        yield Bench(state, settings, redis, s3, producer, store, fleet, sender)
