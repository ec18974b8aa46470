"""What a failover costs: ``python -m tests.benchmarks.failover [--jobs 200] [--times 3] [--server PATH]``.

A primary, a replica and three sentinels, which take a server for dead after three seconds; one worker; activations of
one step. The primary is killed once a tenth of them is done. Seconds are counted from there.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import click
from pydantic import SecretStr

from producer import Producer
from tasks.connection import connect_redis
from tasks.names import journal_stream
from tasks.settings import Settings
from tests.photographs import crops
from tests.sentinels import SentinelSet
from tests.stack import WorkerProcess, running_stack, settings_of
from tests.waiting import LIMIT_S, wait_for

_GOOD = ("activated", "passive")


@click.command(help=__doc__)
@click.option("--jobs", default=200, show_default=True)
@click.option("--times", default=3, show_default=True)
@click.option("--server", help="A redis-server or valkey-server; default: the one that `aii up` would start.")
def main(jobs: int, times: int, server: str | None) -> None:
    click.echo("| server | jobs | lost | registered twice | next primary, s | next job done, s | all done, s |")
    click.echo("|---|---|---|---|---|---|---|")
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            click.echo(f"| {' | '.join(measured(Path(folder), jobs, server))} |")


def measured(folder: Path, jobs: int, server: str | None) -> list[str]:
    """A row of the table."""
    redis_set = SentinelSet(folder / "set", server)
    with running_stack(folder / "stack") as environment:
        url = SecretStr(redis_set.url)
        settings = settings_of(folder / "stack").model_copy(update={"redis_url": url})
        try:
            redis_set.start()
            given = environment | {"AII_REDIS_URL": redis_set.url}
            worker = WorkerProcess(given, settings, folder / "worker.log", "query,activate,index")
            try:
                worker.wait_until_ready()
                return [version(settings), str(jobs), *failed_over(redis_set, settings, jobs)]
            finally:
                worker.kill()
        finally:
            redis_set.stop()


def failed_over(redis_set: SentinelSet, settings: Settings, count: int) -> list[str]:
    with Producer.connect(settings) as producer:
        jobs = [producer.activate(image, options={"steps": 1}) for image in crops(count)]
        wait_for(lambda: done(settings) >= count // 10, "the jobs did not begin")
        killed, began = redis_set.kill_primary(), time.monotonic()
        wait_for(lambda: redis_set.primary() != killed, "there is no next primary")
        next_s, before = time.monotonic() - began, done(settings)
        wait_for(lambda: done(settings) > before, "no job was done after it")
        first_s = time.monotonic() - began
        good = sum(result.status in _GOOD for _, result in producer.wait_all(jobs, LIMIT_S))
        all_s = time.monotonic() - began
    with connect_redis(settings) as client:
        assets = Counter(fields["asset"] for _, fields in client.xrange(journal_stream("starter")) if "asset" in fields)
    twice = sum(times > 1 for times in assets.values())
    return [str(count - good), str(twice), f"{next_s:.1f}", f"{first_s:.1f}", f"{all_s:.1f}"]


def done(settings: Settings) -> int:
    with connect_redis(settings) as client:
        return int(client.zcard("aii:closed:done"))


def version(settings: Settings) -> str:
    with connect_redis(settings) as client:
        told = client.info("server")
    return f"Valkey {told['valkey_version']}" if "valkey_version" in told else f"Redis {told['redis_version']}"


if __name__ == "__main__":
    main()
