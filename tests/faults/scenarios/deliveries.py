"""Messages that come too often or late, are no messages, or carry images and names meant to do harm."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from producer import Job
from tasks.connection import connect_redis
from tasks.messages import ActivationOptions
from tasks.names import QUEUES, TASK_ACTIVATE, canonical_json, sha256_hex
from tests import images_zoo
from tests.faults.bench import Bench, Outcome, images
from tests.faults.fleet import Fault
from tests.odd_messages import some_odd_elements

HOSTILE_NAMES = (
    "../../etc/passwd", "..", ".", "/", "a/../b", "nul\0byte", "line\nbreak", "", " ", "a" * 5_000, "aux:", "-rf",
    "%2e%2e", "\u202egnp.exe",
)  # fmt: skip


def redelivered(bench: Bench, times: int) -> Outcome:
    """A job takes so many times Celery's visibility timeout: its message is delivered again while it runs."""
    bench.fleet.have(0)
    for _ in range(2):
        bench.fleet.start(Fault(visibility_timeout_s=2))
    jobs = bench.submit(8)
    bench.until_running(jobs)
    with bench.s3.frozen():
        time.sleep(2 * times)
    return Outcome(ids(jobs), recovered_s=bench.until_ended(jobs))


def ten_times(bench: Bench, count: int) -> Outcome:
    """The same messages ten times, to two workers."""
    bench.fleet.have(2)
    jobs = bench.submit(count)
    for _ in range(9):
        for job in jobs:
            bench.send(job)
    recovered_s = bench.until_ended(jobs)
    with connect_redis(bench.settings) as client:
        bench.until(lambda: not client.llen("activate"), "messages are left")
    return Outcome(ids(jobs), recovered_s=recovered_s)


def garbage(bench: Bench, count: int) -> Outcome:
    """Elements of the queues' lists that are no messages, or odd ones, in between those of jobs."""
    bench.fleet.have(2)
    jobs: list[Job] = []
    with connect_redis(bench.settings) as client:
        for queue in QUEUES:
            client.lpush(queue, *some_odd_elements(queue, count))
            jobs += bench.submit(4)
    with bench.supervised():
        recovered_s = bench.until_ended(jobs)
    return Outcome(ids(jobs), recovered_s=recovered_s)


def corrupt_in_a_batch(bench: Bench, batches: int) -> Outcome:
    """One corrupt image among eight that are activated together."""
    bench.fleet.have(1)
    good = [images()[i % len(images())] for i in range(8 * batches)]
    jobs = [bench.activate(image if i % 8 else image[:-200]) for i, image in enumerate(good)]
    return Outcome(ids(jobs), {"truncated": batches}, recovered_s=bench.until_ended(jobs))


def hostile_images(bench: Bench, times: int) -> Outcome:
    """Files meant to do harm (bombs, vast headers, cut and lying files), as activations and as queries."""
    bench.fleet.have(1)
    warm = bench.submit(4)
    bench.until_ended(warm)
    before_mb = bench.fleet.peak_mb()
    files = [sample.data for sample in images_zoo.hostile().values() if sample.data] * times
    jobs = [bench.activate(data) for data in files] + [bench.producer.query(data) for data in files]
    recovered_s = bench.until_ended(jobs)
    note = f"peak memory of the worker {before_mb:.0f} MB before, {bench.fleet.peak_mb():.0f} MB after"
    return Outcome(ids(warm + jobs), None, recovered_s, note=note)


def hostile_names(bench: Bench, times: int) -> Outcome:
    """Asset ids and collections meant to leave their folder, sent past the producer's checks."""
    bench.fleet.have(1)
    first = bench.activate(images()[0])
    source = first.request.model_dump(mode="json")["source"]
    sent = [first.job_id]
    for name in HOSTILE_NAMES * times:
        for field in ("asset_id", "collection"):
            payload = {
                "task": TASK_ACTIVATE, "collection": "starter", "source": source, "asset_id": "x", "meta": {},
                "nonce": str(len(sent)), "options": ActivationOptions().model_dump(mode="json"), field: name,
            }  # fmt: skip
            job_id = sha256_hex(canonical_json(payload))[:32]
            bench.sender.send(job_id, TASK_ACTIVATE, "activate", payload)
            sent.append(job_id)
    bench.until(lambda: all(s and s.closed for s in bench.producer.ledger.states(sent)), "some do not end")
    return Outcome(sent, None, wrong=[f"{path} is outside its folder" for path in _outside(bench.state)])


def two_images_for_one_asset(bench: Bench, pairs: int) -> Outcome:
    """Two images are activated as the same asset at the same time, through two workers: one is it, one is refused."""
    bench.fleet.have(2)
    pictures = images()
    jobs = []
    for i in range(pairs):
        name = bench.new_name()
        jobs += [bench.activate(pictures[(2 * i + k) % len(pictures)], asset_id=name) for k in range(2)]
    return Outcome(ids(jobs), {"conflict": pairs}, bench.until_ended(jobs))


def queries_beside_a_backlog(bench: Bench, backlog: int) -> Outcome:
    """Queries beside thousands of waiting activations."""
    bench.fleet.have(2)
    idle = _asked(bench, 20)
    jobs = bench.submit(backlog)
    asked = min(100, 10 + backlog // 50)
    busy = _asked(bench, asked)
    recovered_s = bench.until_ended(jobs)
    note = f"p95 of a query {1000 * idle:.0f} ms idle, {1000 * busy:.0f} ms beside the backlog"
    return Outcome(ids(jobs), recovered_s=recovered_s, note=note)


def _asked(bench: Bench, count: int) -> float:
    """The 95th percentile of a query's seconds."""
    taken = []
    for i in range(count):
        began = time.perf_counter()
        bench.producer.query(images()[i % 40]).wait(600)
        taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=20)[-1]


def _outside(state: Path) -> list[Path]:
    """Files of protected images anywhere else than in their bucket's folder."""
    return [path for path in state.rglob("*.jpg") if path.relative_to(state).parts[:2] != ("s3", "protected")]


def ids(jobs: list[Job]) -> list[str]:
    return [job.job_id for job in jobs]
