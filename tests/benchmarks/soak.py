"""Half an hour of work with a random fault each minute: is anything lost, or does anything contradict?

``python -m tests.benchmarks.soak [--minutes M] [--seed N] [--every S]``: two workers behind links, activations and
queries without a pause, collections compacted meanwhile. One thread strikes, chosen by the seed; in the end
:mod:`tests.faults.oracle` judges every accepted job. Ends with 1 when anything was lost or inconsistent.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; see tests/conftest.py

import random
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from producer import Job
from tasks.connection import connect_redis
from tasks.errors import Unavailable
from tests.faults.bench import QUICK, Bench, images, running_bench
from tests.faults.oracle import judge
from tests.waiting import LIMIT_S

_OPEN_JOBS: Final = 24
_TERMS: Final = {**QUICK, "AII_COMPACT_AFTER": "300"}


@dataclass
class Soak:
    """The jobs of a soak, and what struck them."""

    bench: Bench
    random: random.Random
    jobs: list[Job] = field(default_factory=list)
    open: list[Job] = field(default_factory=list)
    refused: int = 0
    recovered_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    done: threading.Event = field(default_factory=threading.Event)

    def work(self, until: float) -> None:
        """Keep some jobs open until that time (of `time.monotonic`), then wait for the last."""
        while time.monotonic() < until:
            self._fill()
            self.bench.fleet.replace_dead()
            self._forget_ended()
            time.sleep(0.05)
        self.done.set()

    def strike(self, every_s: float) -> None:
        """One fault after the other, until the work is done."""
        while not self.done.wait(every_s):
            name, fault = self.random.choice(list(FAULTS.items()))
            held = self.bench.running(list(self.open))
            fault(self.bench, self.random)
            self.recovered_s[name].append(self.bench.until_ended(held))
            click.echo(f"{name}: {len(held)} jobs, {self.recovered_s[name][-1]:.1f} s", err=True)

    def _fill(self) -> None:
        pictures = images()
        try:
            while len(self.open) < _OPEN_JOBS:
                picture = pictures[len(self.jobs) % len(pictures)]
                query = self.random.random() < 0.2
                job = self.bench.producer.query(picture) if query else self.bench.activate(picture)
                self.jobs.append(job)
                self.open.append(job)
        except Unavailable:
            self.refused += 1

    def _forget_ended(self) -> None:
        states = self.bench.states(self.open)
        self.open = [job for job, state in zip(self.open, states, strict=True) if state is None or not state.closed]


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _kill_worker(bench: Bench, chance: random.Random) -> None:
    chance.choice(bench.fleet.healthy).kill()


def _stop_worker(bench: Bench, chance: random.Random) -> None:
    chance.choice(bench.fleet.healthy).signal(signal.SIGTERM)


def _freeze_worker(bench: Bench, chance: random.Random) -> None:
    worker = chance.choice(bench.fleet.healthy)
    with bench.stopped(worker.pid):
        time.sleep(2 * bench.lease_s)


def _kill_redis(bench: Bench, _: random.Random) -> None:
    os.kill(bench.redis_pid(), signal.SIGKILL)
    bench.until_redis_answers()


def _kill_s3(bench: Bench, _: random.Random) -> None:
    os.kill(bench.s3_pid(), signal.SIGKILL)


def _freeze_redis(bench: Bench, chance: random.Random) -> None:
    with bench.stopped(bench.redis_pid()):
        time.sleep(chance.uniform(1, 20))


def _freeze_s3(bench: Bench, chance: random.Random) -> None:
    with bench.stopped(bench.s3_pid()):
        time.sleep(chance.uniform(1, 20))


def _redis_down(bench: Bench, chance: random.Random) -> None:
    with bench.redis.down():
        time.sleep(chance.uniform(1, 20))


def _s3_down(bench: Bench, chance: random.Random) -> None:
    with bench.s3.down():
        time.sleep(chance.uniform(1, 20))


def _cut_puts(bench: Bench, chance: random.Random) -> None:
    with bench.s3.cutting_every(3):
        time.sleep(chance.uniform(1, 20))


def _half_open(bench: Bench, _: random.Random) -> None:
    bench.redis.forget()


def _fill_redis(bench: Bench, chance: random.Random) -> None:
    with connect_redis(bench.settings) as client:
        client.config_set("maxmemory", "1")
        time.sleep(chance.uniform(1, 20))
        client.config_set("maxmemory", "0")


def _kill_clients(bench: Bench, chance: random.Random) -> None:
    with connect_redis(bench.settings) as client:
        for _ in range(chance.randint(1, 10)):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(1)


FAULTS: Final[dict[str, Callable[[Bench, random.Random], None]]] = {
    "worker killed": _kill_worker,
    "worker told to stop": _stop_worker,
    "worker asleep for two leases": _freeze_worker,
    "Redis killed": _kill_redis,
    "Redis frozen": _freeze_redis,
    "Redis down": _redis_down,
    "Redis at maxmemory": _fill_redis,
    "sockets to Redis half open": _half_open,
    "all clients of Redis killed": _kill_clients,
    "S3 killed": _kill_s3,
    "S3 frozen": _freeze_s3,
    "S3 down": _s3_down,
    "every third PUT cut": _cut_puts,
}


@contextmanager
def _striking(soak: Soak, every_s: float) -> Iterator[None]:
    thread = threading.Thread(target=soak.strike, args=(every_s,), name="faults")
    thread.start()
    try:
        yield
    finally:
        soak.done.set()
        thread.join(2 * LIMIT_S)


@click.command(help=__doc__)
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the faults and their lengths.")
@click.option("--every", default=60.0, show_default=True, help="Seconds between two faults.")
def main(minutes: float, seed: int, every: float) -> None:
    with tempfile.TemporaryDirectory() as folder, running_bench(Path(folder), _TERMS) as bench:
        soak = Soak(bench, random.Random(seed))
        bench.fleet.have(2)
        began = time.monotonic()
        with _striking(soak, every):
            soak.work(began + 60 * minutes)
        with bench.supervised():
            bench.until_ended(soak.open)
        elapsed_s = time.monotonic() - began
        verdict = judge(bench.settings, [job.job_id for job in soak.jobs], bench.state / "oracle")
    click.echo("| fault | times | seconds to recover, at most |\n|---|---|---|")
    for name, taken in sorted(soak.recovered_s.items()):
        click.echo(f"| {name} | {len(taken)} | {max(taken):.1f} |")
    click.echo(
        f"{verdict.jobs:,} jobs in {elapsed_s / 60:.0f} minutes, {sum(map(len, soak.recovered_s.values()))} faults; "
        f"lost {len(verdict.lost)}, inconsistent {len(verdict.inconsistent)}, failed {dict(verdict.failed)}; "
        f"{soak.refused} submissions were refused while a service was away."
    )
    for problem in [*verdict.lost, *verdict.inconsistent][:20]:
        click.echo(f"    {problem}", err=True)
    sys.exit(bool(verdict.lost or verdict.inconsistent or verdict.failed))


if __name__ == "__main__":
    main()
