"""A worker that is told to stop ends, whatever is silent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from producer import Producer
from tasks.app import Sender, create_app, submit
from tasks.connection import connect_redis
from tasks.ledger.states import JobState
from tests.photographs import crops
from tests.stack import WorkerProcess, running_stack, settings_of
from tests.waiting import LIMIT_S, wait_for

FOR_EVER_S = "86400"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with running_stack(tmp_path) as environment:
        yield environment


@pytest.fixture
def frozen() -> Iterator[list[int]]:
    """Processes that a test stopped; they go on at its end, so that the stack can be taken down."""
    frozen: list[int] = []
    yield frozen
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)


def start(environment: dict[str, str], state: Path, stop_timeout_s: str) -> WorkerProcess:
    given = environment | {"AII_STOP_TIMEOUT_S": stop_timeout_s}
    worker = WorkerProcess(given, settings_of(state), state / "worker.log", "query,activate")
    return worker.wait_until_ready()


def freeze(pid: int, frozen: list[int]) -> None:
    os.kill(pid, signal.SIGSTOP)
    frozen.append(pid)


def redis_pid(state: Path) -> int:
    with connect_redis(settings_of(state)) as client:
        return int(client.info("server")["process_id"])


def s3_pid(state: Path) -> int:
    address = settings_of(state).s3_endpoint
    return next(p.pid for p in psutil.process_iter(["cmdline"]) if address in (p.info["cmdline"] or ()))


def test_an_idle_worker_ends_while_redis_is_silent(
    environment: dict[str, str], tmp_path: Path, frozen: list[int]
) -> None:
    worker = start(environment, tmp_path, FOR_EVER_S)
    freeze(redis_pid(tmp_path), frozen)
    worker.stop()  # fails unless it ends by itself


@pytest.mark.parametrize("partition", ["from S3", "from S3 and Redis"])
def test_a_job_that_is_cut_off_does_not_prolong_the_stop(
    partition: str, environment: dict[str, str], tmp_path: Path, frozen: list[int]
) -> None:
    worker = start(environment, tmp_path, "1")
    redis = redis_pid(tmp_path)
    with Producer.connect(settings_of(tmp_path)) as producer:
        done = producer.activate(crops(1)[0])
        done.wait(LIMIT_S)
        freeze(s3_pid(tmp_path), frozen)
        again = done.request.model_copy(update={"nonce": "again"})  # its image is in S3 already
        assert submit(producer.ledger, Sender(create_app(settings_of(tmp_path)), settings_of(tmp_path)), again)
        wait_for(lambda: producer.ledger.get(again.job_id).state is JobState.RUNNING)
        if "Redis" in partition:
            freeze(redis, frozen)
        assert worker.stop() != 0  # and fails unless it ends by itself
        os.kill(redis, signal.SIGCONT)
        assert producer.ledger.get(again.job_id).state is JobState.RUNNING  # another worker takes it over
