"""Redis is killed, frozen, away, full, forgetful of its clients, or behind a dead connection."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import redis

from producer import Job
from tasks.connection import connect_redis
from tasks.errors import RedisUnavailable
from tests.faults.bench import Bench, Outcome

JOBS = 24
_NO_RIGHTS = "does not let this user do that"


def killed(bench: Bench, times: int) -> Outcome:
    """`kill -9` of Redis amid activations; the supervisor starts it again."""
    bench.fleet.have(2)
    jobs: list[Job] = []
    slowest_s = 0.0
    for _ in range(times):
        more, held = bench.submit_running(JOBS)
        jobs += more
        os.kill(bench.redis_pid(), signal.SIGKILL)
        bench.until_redis_answers()
        slowest_s = max(slowest_s, bench.until_ended(held))
    bench.until_ended(jobs)
    return Outcome([job.job_id for job in jobs], recovered_s=slowest_s)


def frozen(bench: Bench, seconds: int) -> Outcome:
    """SIGSTOP of Redis amid activations: connections stay open and silent."""
    return _away(bench, lambda: bench.stopped(bench.redis_pid()), seconds)


def down(bench: Bench, seconds: int) -> Outcome:
    """Redis is away for a minute: every connection is refused."""
    return _away(bench, bench.redis.down, seconds)


def half_open(bench: Bench, _: int) -> Outcome:
    """Every connection to Redis goes dead without ending, as behind a firewall that forgot it."""
    jobs, held = _begun(bench)
    bench.redis.forget()
    more = bench.submit(4)
    recovered_s = bench.until_ended(held + more)
    bench.until_ended(jobs)
    return Outcome([job.job_id for job in jobs + more], recovered_s=recovered_s)


def full(bench: Bench, seconds: int) -> Outcome:
    """Redis is at `maxmemory` and refuses every write."""
    jobs, held = _begun(bench)
    with connect_redis(bench.settings) as client:
        client.config_set("maxmemory", "1")
        time.sleep(seconds)
        client.config_set("maxmemory", "0")
    recovered_s = bench.until_ended(held)
    bench.until_ended(jobs)
    return Outcome([job.job_id for job in jobs], recovered_s=recovered_s)


def clients_killed(bench: Bench, times: int) -> Outcome:
    """`CLIENT KILL` of all clients, once a second, amid activations."""
    bench.fleet.have(2)
    jobs = bench.submit(2 * JOBS)
    with connect_redis(bench.settings) as client:
        for _ in range(times):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(1)
    return Outcome([job.job_id for job in jobs], recovered_s=bench.until_ended(jobs))


def password_changed(bench: Bench, seconds: int) -> Outcome:
    """Redis refuses the workers' password for a while, as after a rotation that was taken back."""
    jobs, held = _begun(bench)
    client: redis.Redis = connect_redis(bench.settings)
    password = client.config_get("requirepass")["requirepass"]
    with client.client() as single:  # one connection, which stays authenticated
        single.config_set("requirepass", "another")
        single.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(seconds)
        single.config_set("requirepass", password)
    client.close()
    recovered_s = bench.until_ended(held)
    bench.until_ended(jobs)
    return Outcome([job.job_id for job in jobs], recovered_s=recovered_s)


def rights_withdrawn(bench: Bench, seconds: int) -> Outcome:
    """Redis' ACL takes the rights to write and to run scripts from workers and producers for a while."""
    jobs, held = _begun(bench)
    workers, wrong = bench.fleet.have(2), []
    with connect_redis(bench.settings) as client:
        client.execute_command("ACL", "SETUSER", "default", "-@write", "-@scripting")
        try:
            try:
                bench.submit(1)
                wrong.append("a job was accepted that could not be written")
            except RedisUnavailable as error:
                if _NO_RIGHTS not in error.message:
                    wrong.append(f"the producer is told: {error.message}")
            bench.until(lambda: all(_NO_RIGHTS in worker.log.read_text() for worker in workers), "a worker is silent")
            time.sleep(seconds)
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+@all")
    recovered_s = bench.until_ended(held)
    bench.until_ended(jobs)
    wrong += [f"worker {worker.pid} ended" for worker in workers if not worker.alive()]
    return Outcome([job.job_id for job in jobs], recovered_s=recovered_s, wrong=wrong)


def _begun(bench: Bench) -> tuple[list[Job], list[Job]]:
    """All jobs, and those that run."""
    bench.fleet.have(2)
    return bench.submit_running(JOBS)


def _away(bench: Bench, fault: Callable[[], AbstractContextManager[None]], seconds: int) -> Outcome:
    jobs, held = _begun(bench)
    with fault():
        time.sleep(seconds)
    recovered_s = bench.until_ended(held)
    bench.until_ended(jobs)
    return Outcome([job.job_id for job in jobs], recovered_s=recovered_s)
