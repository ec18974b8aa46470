"""S3 is away, frozen, cut, lacks a bucket, refuses, or has lost an object."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from producer import Job
from tasks.storage import Bucket
from tests.faults.bench import Bench, Outcome
from tests.photographs import crops

JOBS = 24


def down(bench: Bench, seconds: int) -> Outcome:
    """S3 is away: every connection is refused."""
    return _away(bench, bench.s3.down, seconds)


def frozen(bench: Bench, seconds: int) -> Outcome:
    """SIGSTOP of S3 amid activations: connections stay open and silent."""
    return _away(bench, lambda: bench.stopped(bench.s3_pid()), seconds)


def killed(bench: Bench, times: int) -> Outcome:
    """`kill -9` of S3 amid activations; the supervisor starts it again."""
    bench.fleet.have(2)
    jobs: list[Job] = []
    slowest_s = 0.0
    for _ in range(times):
        more, held = bench.submit_running(JOBS)
        jobs += more
        os.kill(bench.s3_pid(), signal.SIGKILL)
        slowest_s = max(slowest_s, bench.until_ended(held))
    bench.until_ended(jobs)
    return Outcome(ids(jobs), recovered_s=slowest_s)


def cut_puts(bench: Bench, count: int) -> Outcome:
    """Every third PUT is cut in the middle."""
    bench.fleet.have(2)
    jobs = bench.submit(count)
    with bench.s3.cutting_every(3):
        recovered_s = bench.until_ended(jobs)
    return Outcome(ids(jobs), recovered_s=recovered_s)


def bucket_missing(bench: Bench, seconds: int) -> Outcome:
    """The bucket of protected images is gone, and comes back."""
    return _away(bench, lambda: bench.s3.refusing({_protected(bench): ("404 Not Found", "NoSuchBucket")}), seconds)


def refused(bench: Bench, count: int) -> Outcome:
    """S3 answers 403 to every PUT of a protected image: a refusal, unlike absence, ends the job after some attempts."""
    bench.fleet.have(2)
    with bench.s3.refusing({_protected(bench): ("403 Forbidden", "AccessDenied")}):
        jobs = bench.submit(count)
        bench.until_ended(jobs)
    more = bench.submit(count)
    recovered_s = bench.until_ended(more)
    return Outcome(ids(jobs + more), {"storage_refused": count}, recovered_s)


def key_missing(bench: Bench, count: int) -> Outcome:
    """The original of an accepted job is deleted before it runs."""
    bench.fleet.have(0)
    pictures = crops(count + 3, side=104)[3:]
    jobs = [bench.activate(picture) for picture in pictures]
    for job in jobs[::2]:
        bench.store.delete(Bucket.ORIGINALS, job.request.source.sha256)  # type: ignore[attr-defined]
    bench.fleet.have(1)
    recovered_s = bench.until_ended(jobs)
    return Outcome(ids(jobs), {"not_found": len(jobs[::2])}, recovered_s)


def ids(jobs: list[Job]) -> list[str]:
    return [job.job_id for job in jobs]


def _protected(bench: Bench) -> str:
    """How a request begins that puts a protected image."""
    return f"PUT /{bench.store.name_of(Bucket.PROTECTED)}/"


def _away(bench: Bench, fault: Callable[[], AbstractContextManager[None]], seconds: int) -> Outcome:
    bench.fleet.have(2)
    jobs, held = bench.submit_running(JOBS)
    with fault():
        time.sleep(seconds)
    recovered_s = bench.until_ended(held)
    bench.until_ended(jobs)
    return Outcome(ids(jobs), recovered_s=recovered_s)
