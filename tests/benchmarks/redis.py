"""What one image costs Redis: ``python -m tests.benchmarks.redis [--count 200] [--json FILE]``.

Photographs are activated through a producer and one real worker, in batches as `aii activate` sends them. Redis itself
counts: the difference of `INFO commandstats` and of the process' CPU time over a batch, less what an idle worker costs
in the same time. Commands that a script makes are counted like those that a client sends; a second batch, under
`MONITOR`, says which are which, for those that are sent for each job.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from producer import Producer
from producer.batch import run_batch
from producer.search import Found
from tasks.connection import RedisClient
from tasks.messages import ActivationOptions
from tests.photographs import crops
from tests.stack import running_service

_IDLE_S: Final = 10.0
# What this benchmark itself asks.
_OWN: Final = frozenset(("info", "monitor", "client", "hello", "auth", "select", "ping", "command"))
# The beginnings of what is sent for a single job. Everything else is sent once in a while: notes of presence, figures,
# renewals of leases, searches for lost jobs, readings of journals.
_OF_JOBS: Final = re.compile(
    r"EVALSHA \w+ \d+ aii:(job:|open:|events |journal:[^: ]+ )|LPUSH (query|activate|index)(\.\d+)? "
    r"|HGET aii:journal:\S+ \S*|HMGET aii:job:|HGETALL aii:job:"
)


@dataclass(frozen=True)
class Command:
    """One command that Redis was told: by a script, or by a client."""

    text: str
    by_script: bool

    @property
    def name(self) -> str:
        return self.text.partition(" ")[0].lower()


@dataclass(frozen=True)
class Spent:
    """What Redis did in some time: calls by command, and seconds of its CPU."""

    calls: Counter[str]
    cpu_s: float
    wall_s: float = 0.0


@click.command(help=__doc__)
@click.option("--count", default=200, show_default=True, help="Images in a batch.")
@click.option("--steps", default=1, show_default=True, help="Steps of the optimiser: Redis does not mind them.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(count: int, steps: int, json_path: Path | None) -> None:
    files = crops(3 * count, side=160)
    options = ActivationOptions(steps=steps)
    with running_service() as service:
        client, producer = service.client, service.producer
        activate_all(producer, files[:count], options)  # scripts are loaded, entities declared
        idle = _spent(client, lambda: time.sleep(_IDLE_S))
        busy = _spent(client, lambda: activate_all(producer, files[count : 2 * count], options))
        with monitored(client) as lines:
            activate_all(producer, files[2 * count :], options)
    figures = _figures(count, busy, idle, lines)
    for name, value in figures.items():
        click.echo(f"{name:<40}{value:.3f}" if isinstance(value, float) else f"{name:<40}{value}")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


def activate_all(producer: Producer, files: Sequence[bytes], options: ActivationOptions) -> None:
    found = [Found(f"{i}", f"{i}", data) for i, data in enumerate(files)]
    ended = run_batch(producer, found, lambda image: producer.activate(image.source, options=options), None)
    assert all(submission.result for submission in ended)


def _spent(client: RedisClient, work: Any) -> Spent:
    before, began = _now(client), time.monotonic()
    work()
    after = _now(client)
    return Spent(after.calls - before.calls, after.cpu_s - before.cpu_s, time.monotonic() - began)


def _now(client: RedisClient) -> Spent:
    stats, cpu = client.info("commandstats"), client.info("cpu")
    calls = {name.removeprefix("cmdstat_"): said["calls"] for name, said in stats.items()}
    ours = Counter({name: n for name, n in calls.items() if name.partition("|")[0] not in _OWN})
    return Spent(ours, cpu["used_cpu_user"] + cpu["used_cpu_sys"])


@contextmanager
def monitored(client: RedisClient) -> Iterator[list[Command]]:
    """Collects what Redis is told within the block."""
    lines: list[Command] = []
    with client.monitor() as monitor:
        end = threading.Event()

        def collect() -> None:
            while not end.is_set():
                said = monitor.next_command()
                command = Command(said["command"], said["client_type"] == "lua")
                if command.name not in _OWN:
                    lines.append(command)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        try:
            yield lines
        finally:
            end.set()
            client.ping()  # one more line, which ends the thread
            thread.join()


def of_jobs(commands: Sequence[Command]) -> list[Command]:
    """What was sent for single jobs, with what the scripts made of it: it does not depend on the time that they took,
    except that a producer which waits for long asks for the state again."""
    kept, ours = [], False
    for command in commands:
        ours = ours if command.by_script else bool(_OF_JOBS.match(command.text))
        if ours:
            kept.append(command)
    return kept


def _figures(count: int, busy: Spent, idle: Spent, lines: Sequence[Command]) -> dict[str, float]:
    """All by image; what an idle worker costs in the same time is subtracted from `cpu_ms` and from each command."""
    share = busy.wall_s / idle.wall_s
    calls = {name: (n - share * idle.calls[name]) / count for name, n in busy.calls.items()}
    jobs = of_jobs(lines)
    return {
        "images_per_s": count / busy.wall_s,
        "commands": sum(busy.calls.values()) / count,
        "commands_less_idle": sum(calls.values()),
        "of_jobs_sent_by_clients": sum(not command.by_script for command in jobs) / count,
        "of_jobs_made_by_scripts": sum(command.by_script for command in jobs) / count,
        "cpu_ms": 1000 * (busy.cpu_s - share * idle.cpu_s) / count,
        "idle_commands_per_s": sum(idle.calls.values()) / idle.wall_s,
        "idle_cpu_ms_per_s": 1000 * idle.cpu_s / idle.wall_s,
        **{f"  {name}": calls[name] for name in sorted(calls, key=lambda name: -calls[name]) if calls[name] >= 0.005},
    }


if __name__ == "__main__":
    main()
