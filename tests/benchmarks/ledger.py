"""What an image costs Redis at a fleet's pace: ``python -m tests.benchmarks.ledger [--count 2000]``.

`tests.benchmarks.redis` activates images, of which one worker does some ten a second: Redis then wakes for nearly every
command, and writes its log once a second for a few of them. Here, threads submit jobs, take their messages, claim,
commit and close them without any work in between, hundreds a second, as many workers would: what Redis spends on an
image is what bounds a fleet.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import click

from tasks.app import Sender, create_app, submit
from tasks.connection import RedisClient, connect_redis
from tasks.ledger.commits import JobFacts, Registration, Seen
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source
from tasks.names import QUEUE_ACTIVATE
from tasks.settings import Settings
from tasks.shares import queues_of
from tests.stack import running_stack, settings_of

_HALF_DOCUMENT: Final = "x" * 3_000  # a result document has six kilobytes
_COLLECTION: Final = "c"


@click.command(help=__doc__)
@click.option("--count", default=2_000, show_default=True, help="Images.")
@click.option("--producer-threads", default=8, show_default=True, help="That submit at the same time.")
@click.option("--worker-threads", default=16, show_default=True, help="That run jobs at the same time.")
def main(count: int, producer_threads: int, worker_threads: int) -> None:
    with tempfile.TemporaryDirectory() as state, running_stack(Path(state)):
        settings = settings_of(Path(state))
        with connect_redis(settings) as client:
            fleet = _Fleet(settings, client)
            for number in range(50):  # scripts are loaded, entities declared
                fleet.submit(number)
                fleet.work(number)
            total_ms = total_commands = 0.0
            for name, act, threads in (
                ("submission", fleet.submit, producer_threads), ("work", fleet.work, worker_threads),
            ):  # fmt: skip
                rate, ms, commands = _measured(client, act, count, threads)
                total_ms, total_commands = total_ms + ms, total_commands + commands
                click.echo(f"{name:<12}{ms:.3f} ms, {commands:.1f} commands an image, at {rate:.0f} images a second")
    busy_at = 1000 / total_ms
    click.echo(
        f"{'in all':<12}{total_ms:.3f} ms, {total_commands:.1f} commands: {busy_at:,.0f} a second keep Redis busy"
    )


class _Fleet:
    """Producers and workers as far as Redis knows them. Thread-safe."""

    def __init__(self, settings: Settings, client: RedisClient) -> None:
        self._client = client
        self._sender = Sender(create_app(settings), settings)
        self._producer, self._worker = Ledger.connect(settings), Ledger.connect(settings)

    def submit(self, number: int) -> None:
        source = Source(sha256=f"{number:064x}", size=1_000)
        request = ActivateRequest(collection=_COLLECTION, source=source, nonce=uuid.uuid4().hex)
        assert submit(self._producer, self._sender, request)

    def work(self, _: int) -> None:
        """Take the next message and do its job, as a worker does but for the image."""
        with self._worker.batch_delay.job():
            self._work()

    def _work(self) -> None:
        taken = self._client.brpop(list(queues_of(QUEUE_ACTIVATE)), 30)
        job_id, token = str(json.loads(taken[1])["headers"]["id"]), uuid.uuid4().hex
        self._worker.claim(job_id, QUEUE_ACTIVATE, token, "worker")
        assert self._worker.begin_publishing(job_id, token)
        digest = 2 * job_id
        facts = JobFacts(job_id, digest, f"{_COLLECTION}/assets/{digest}", digest, digest)
        registration = Registration(_COLLECTION, digest, "A" * 12, "{}", facts)
        halves = (_HALF_DOCUMENT, _HALF_DOCUMENT)
        commit = self._worker.commit(job_id, token, halves, registration, Seen("0", None), 0)
        assert commit is not None
        entry = commit.document.decode().strip("x")
        recorded = (_COLLECTION, digest, entry)
        assert self._worker.close(job_id, token, JobState.DONE, recorded=recorded, found_in_s3=True)


def _measured(client: RedisClient, act: Callable[[int], None], count: int, threads: int) -> tuple[float, float, float]:
    """Images a second; and for each, milliseconds of Redis' CPU, those of its threads that write the log included, and
    commands, those within scripts included."""
    before_s, commands, began = _cpu_s(client), _commands(client), time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(act, range(count)))
    rate = count / (time.monotonic() - began)
    return rate, 1000 * (_cpu_s(client) - before_s) / count, (_commands(client) - commands) / count


def _commands(client: RedisClient) -> int:
    return sum(said["calls"] for said in client.info("commandstats").values())


def _cpu_s(client: RedisClient) -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


if __name__ == "__main__":
    main()
