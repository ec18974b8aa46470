"""What watching costs: ``python -m tests.benchmarks.dashboard [--json FILE]``.

A real Redis is filled with finished jobs by the ledger's own transitions, a real Flower is told of each as workers tell
it, and asked meanwhile: how long the page, its figures and Prometheus' take, and how much memory Flower holds after
half of the jobs and after all. Then what publishing its figures costs a worker.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from celery import Celery

from tasks.app import create_app
from tasks.connection import connect_redis
from tasks.kinds import KINDS
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source
from tasks.monitoring.metrics import Counters, Failure, Metrics
from tasks.monitoring.observer import Observer
from tasks.monitoring.paper import OPTIMISER, TEN_STEPS
from tasks.names import TASK_ACTIVATE, TASK_QUERY
from tasks.settings import Settings
from tests.flower import Flower
from tests.stack import running_stack, settings_of
from tests.waiting import wait_for

ASKED = {
    "page": "/activations",
    "health": "/activations/health.json",
    "overview": "/activations/overview.json",
    "history": "/activations/history.json?range=7d",
    "jobs": "/activations/jobs",
    "search": "/activations/jobs?q=asset-49",
    "operations": "/activations/operations",
    "metrics": "/metrics",
}
HOST = "activate@benchmark"


@click.command(help=__doc__)
@click.option("--jobs", default=50_000, show_default=True)
@click.option("--rate", default=20, show_default=True, help="Images a second that a worker publishes figures of.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(jobs: int, rate: int, json_path: Path | None) -> None:
    figures: dict[str, Any] = {"jobs": jobs}
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = stack.enter_context(running_stack(state))
        settings = settings_of(state)
        flower = Flower(dict(os.environ) | environment, state / "flower.log").wait_until_ready()
        stack.callback(flower.stop)
        figures["flower_mib_at_start"] = resident_mib(flower.pid)
        filler = Filler(settings)
        for part in (1, 2):
            filler.fill(jobs // 2)
            wait_for(lambda: seen_events(flower) >= filler.events, "Flower does not follow", 600)
            figures[f"flower_mib_at_{part * jobs // 2}"] = resident_mib(flower.pid)
        figures |= answers(flower)
        figures |= publishing(settings, rate)
        figures |= reading(settings)
        figures["redis_kib_of_figures"] = redis_kib(settings)
    for name, value in figures.items():
        click.echo(f"{name:<28}{value:>12,.2f}" if isinstance(value, float) else f"{name:<28}{value:>12,}")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


class Filler:
    """Finishes jobs as workers do: through the ledger, with figures and Celery's events; one of a hundred fails."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = Ledger.connect(settings)
        self._metrics = Metrics(connect_redis(settings))
        self._app: Celery = create_app(settings)
        self._draw = random.Random(0)
        self._done = 0
        self.events = 0

    def fill(self, count: int, together: int = 500) -> None:
        with (
            self._app.connection_for_write() as connection,
            self._app.events.Dispatcher(connection, hostname=HOST, enabled=True) as events,
        ):
            for _ in range(0, count, together):
                self._finish(together, events)

    def _finish(self, count: int, events: Any) -> None:
        requests = [
            ActivateRequest(collection="starter", source=Source(sha256=f"{n:064x}", size=1), asset_id=f"asset-{n}")
            for n in range(self._done, self._done + count)
        ]
        self._done += count
        self._ledger.submit(requests)
        for request in requests:
            bad = self._draw.random() < 0.01
            self._ledger.claim(request.job_id, request.queue, "token", "worker")
            state, code = (JobState.FAILED, "truncated") if bad else (JobState.DONE, "")
            self._ledger.close(request.job_id, "token", state, code, code and "The image is cut off.")
            for kind in ("task-received", "task-started", "task-succeeded"):
                told = {"name": TASK_ACTIVATE, "args": "()", "kwargs": "{}"} if kind == "task-received" else {}
                events.send(kind, uuid=request.job_id, runtime=0.05, result="'activated'", **told)
                self.events += 1
        failure = Failure("truncated", "The image is cut off.", requests[-1].job_id, time.time())
        self._metrics.publish(counters(count, self._draw), [failure], [r.job_id for r in requests[-12:]])


def counters(images: int, draw: random.Random) -> Counters:
    """What a worker counts of so many images and as many queries."""
    made = Counters()
    for kind in KINDS:
        for stage in kind.stages:
            for _ in range(images):
                made.observe(kind.task, stage, draw.lognormvariate(2, 1))
    for _ in range(images):
        made.observe(OPTIMISER, TEN_STEPS, draw.lognormvariate(3, 0.5))
        made.observe_psnr(draw.gauss(39, 2))
    made.outcomes[TASK_ACTIVATE, "activated"] = images
    made.outcomes[TASK_QUERY, "answered"] = images
    return made


def seen_events(flower: Flower) -> int:
    text = flower.get("/metrics")[1].decode()
    lines = [line for line in text.splitlines() if line.startswith("flower_events_total{") and HOST in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if "task-" in line)


def answers(flower: Flower) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, path in ASKED.items():
        times = timed(lambda path=path: flower.get(path), 60)  # type: ignore[misc]
        figures[f"{name}_p50_ms"], figures[f"{name}_p95_ms"] = statistics.median(times), sorted(times)[56]
    return figures


def publishing(settings: Settings, rate: int) -> dict[str, float]:
    """Once a second a worker publishes what it counted in it: its own time, and that of Redis."""
    with connect_redis(settings) as client:
        metrics, draw = Metrics(client), random.Random(1)
        batches = [counters(rate, draw) for _ in range(50)]
        before, cpu = client.info("commandstats"), time.process_time()
        times = timed(lambda: metrics.publish(batches.pop(), [], []), 50)
        own_s = (time.process_time() - cpu) / 50
        after = client.info("commandstats")
    redis_s = sum(used(after, name) - used(before, name) for name in ("eval", "evalsha", "expire")) / 50 / 1e6
    fields = len(list(counters(rate, draw).fields()))
    return {
        "fields_a_publish": fields, "publish_p50_ms": statistics.median(times), "publish_p95_ms": sorted(times)[47],
        "worker_core_percent": 100 * own_s, "redis_core_percent": 100 * redis_s,
    }  # fmt: skip


def reading(settings: Settings) -> dict[str, float]:
    """What Flower's refreshing costs every two seconds."""
    observer = Observer(settings, history_s=1_800)
    first = timed(observer.read, 1)[0]
    figures = {"first_read_ms": first, "read_p50_ms": statistics.median(timed(observer.read, 20))}
    observer.close()
    return figures


def redis_kib(settings: Settings) -> float:
    """What the figures take in Redis."""
    with connect_redis(settings) as client:
        keys = [*client.scan_iter("aii:metrics:*"), "aii:marks", "aii:failures", "aii:latest"]
        return sum(client.memory_usage(key, samples=0) or 0 for key in keys) / 1024


def used(stats: dict[str, Any], command: str) -> float:
    """Microseconds that Redis has spent on a command."""
    return float(stats.get(f"cmdstat_{command}", {}).get("usec", 0))


def timed(call: Callable[[], object], times: int) -> list[float]:
    """Milliseconds of each call."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
