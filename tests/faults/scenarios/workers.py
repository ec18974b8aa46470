"""Workers that are killed, frozen, told to stop, hang, or lack memory."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import workers.extractors.weights
from producer import Job
from tasks.connection import connect_redis
from tasks.names import sha256_hex
from tests.faults.bench import Bench, Outcome
from tests.faults.fleet import POINTS, Fault, Trap
from tests.photographs import crops


def ids(jobs: list[Job]) -> list[str]:
    return [job.job_id for job in jobs]


def killed(bench: Bench, kills: int) -> Outcome:
    """`kill -9` of a worker, again and again, amid activations."""
    bench.fleet.have(2)
    jobs: list[Job] = []
    slowest_s = 0.0
    for i in range(kills):
        more, held = bench.submit_running(16)
        jobs += more
        bench.fleet.have(2)[i % 2].kill()
        struck = time.monotonic()
        bench.fleet.have(2)
        slowest_s = max(slowest_s, bench.until_ended(held, since=struck))
    bench.until_ended(jobs)
    return Outcome(ids(jobs), recovered_s=slowest_s)


def idle_frozen_then_killed(bench: Bench, count: int) -> Outcome:
    """SIGSTOP of an idle worker, jobs, `kill -9`: the messages that Redis gave to it are gone."""
    (worker,) = bench.fleet.have(1)
    worker.signal(signal.SIGSTOP)
    jobs = bench.submit(count)
    worker.kill()
    struck = time.monotonic()
    bench.fleet.have(1)
    return Outcome(ids(jobs), recovered_s=bench.until_ended(jobs, since=struck))


def crash_at_each_point(bench: Bench, count: int) -> Outcome:
    """`kill -9` of a worker at each of eight points between taking a job and acknowledging its message."""
    jobs: list[Job] = []
    with connect_redis(bench.settings) as client, client.lock("aii:reconciler", timeout=3_600):  # no job dies twice
        for point in POINTS:
            bench.fleet.have(0)
            jobs += bench.submit(count)
            bench.fleet.start(Fault(Trap(point)), wait=False).wait_until_dead()
    struck = time.monotonic()
    bench.fleet.have(1)
    return Outcome(ids(jobs), recovered_s=bench.until_ended(jobs, since=struck), note=", ".join(POINTS))


def asleep_past_its_lease(bench: Bench, count: int) -> Outcome:
    """A worker sleeps past its leases (SIGSTOP), another does its jobs, then the first goes on."""
    (sleeper,) = bench.fleet.have(1)
    jobs = bench.submit(count, steps=40)
    held = bench.until_running(jobs)
    sleeper.signal(signal.SIGSTOP)
    struck = time.monotonic()
    bench.fleet.have(2)
    recovered_s = bench.until_ended(held, since=struck)
    sleeper.signal(signal.SIGCONT)
    bench.until_ended(jobs)
    bench.until(sleeper.ready, "the sleeper does not wake up")
    return Outcome(ids(jobs), recovered_s=recovered_s)


def told_to_stop(bench: Bench, count: int) -> Outcome:
    """SIGTERM with work queued: the worker ends what it runs, another does the rest."""
    (worker,) = bench.fleet.have(1)
    jobs = bench.submit(count)
    bench.until_running(jobs)
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    worker.wait_until_dead()
    stopped_s = time.monotonic() - began
    bench.fleet.have(1)
    recovered_s = bench.until_ended(jobs, since=began)
    return Outcome(ids(jobs), recovered_s=recovered_s, note=f"it ended after {stopped_s:.1f} s")


def poison(bench: Bench, neighbours: int) -> Outcome:
    """An image that kills every worker that reads it, among healthy ones."""
    bench.fleet.have(0)
    bad = _fresh_image(1)
    jobs = [*bench.submit(neighbours // 2), bench.activate(bad), *bench.submit(neighbours - neighbours // 2)]
    trap = Fault(Trap("fetched", sha256_hex(bad)))
    return Outcome(ids(jobs), {"poison": 1}, _until_ended_by(bench, jobs, trap))


def hung(bench: Bench, neighbours: int) -> Outcome:
    """An image over which a thread hangs for ever, among healthy ones."""
    bench.fleet.have(0)
    bad = _fresh_image(2)
    jobs = [bench.activate(bad), *bench.submit(neighbours)]
    trap = Fault(Trap("fetched", sha256_hex(bad), "hang"))
    limits = {"AII_STAGE_TIMEOUT_S": f"{2 * bench.lease_s:g}"}  # healthy neighbours need some, on a busy machine
    return Outcome(ids(jobs), {"deadline_exceeded": 1}, _until_ended_by(bench, jobs, trap, **limits))


def out_of_memory(bench: Bench, count: int) -> Outcome:
    """A device that has memory for two images only, and batches of eight."""
    bench.fleet.have(0)
    bench.fleet.start(Fault(device_images=2), AII_BATCH_IMAGES="8")
    jobs = bench.submit(count)
    return Outcome(ids(jobs), recovered_s=bench.until_ended(jobs))


def wrong_secrets(bench: Bench, count: int) -> Outcome:
    """Workers with a wrong password of Redis, and wrong keys of S3: they end and say why; the jobs wait."""
    bench.fleet.have(0)
    jobs = bench.submit(count)
    wrong = []
    redis = bench.fleet.environment["AII_REDIS_URL"].rpartition("@")[2]
    for variable, value in (("AII_REDIS_URL", f"redis://:wrong@{redis}"), ("AII_S3_SECRET_KEY", "wrong")):
        worker = bench.fleet.start(wait=False, **{variable: value})
        worker.wait_until_dead()
        said = worker.log.read_text()
        if worker.exit_status == 0 or variable not in said or "Traceback" in said:
            wrong.append(f"exit status {worker.exit_status}: {said[-500:]}")
    bench.fleet.have(1)
    return Outcome(ids(jobs), recovered_s=bench.until_ended(jobs), wrong=wrong)


def changed_model(bench: Bench, count: int) -> Outcome:
    """A worker whose weights file has one flipped byte: no code of it gets into the index."""
    bench.fleet.have(1)  # publishes the collection
    bench.fleet.have(0)
    changed = bench.state / "changed.safetensors"
    shutil.copy(Path(workers.extractors.weights.__path__[0]) / "compact.safetensors", changed)
    data = bytearray(changed.read_bytes())
    data[-1_000] ^= 1
    changed.write_bytes(data)
    jobs = bench.submit(count)
    worker = bench.fleet.start(wait=False, AII_EXTRACTOR=f"compact@{changed}")
    bench.until(lambda: not worker.alive() or bench.ended(jobs) == len(jobs), "it neither ends nor refuses")
    refused = bench.ended(jobs)
    bench.fleet.have(1)
    more = bench.submit(count)
    recovered_s = bench.until_ended(jobs + more)
    return Outcome(ids(jobs + more), {"extractor_mismatch": refused} if refused else {}, recovered_s=recovered_s)


def _until_ended_by(bench: Bench, jobs: list[Job], fault: Fault, **environment: str) -> float:
    """Seconds until workers with a fault, one after the other, have ended these jobs."""
    began = time.monotonic()
    while bench.ended(jobs) < len(jobs):
        worker = bench.fleet.start(fault, wait=False, **environment)
        while worker.alive() and (ended := bench.ended(jobs)) < len(jobs):
            # The limit is one without progress.
            bench.until(lambda: not worker.alive() or bench.ended(jobs) > ended, "neither dead nor at work")  # noqa: B023
    return time.monotonic() - began


def _fresh_image(number: int) -> bytes:
    """One that no other scenario uses, so that its digest names it."""
    return crops(number, side=100)[-1]
