"""A producer and a fork, as under gunicorn's `--preload`, Celery's prefork pool, or multiprocessing."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import Final

import pytest

from producer import Producer
from tasks.ledger.states import JobState
from tests.waiting import LIMIT_S

PRELUDE: Final = """
import os, sys, multiprocessing, signal
import uuid
from producer import Producer
from tests.photographs import crops

def submit():
    try:
        print("accepted", producer.activate(crops(1)[0], asset_id="forked", again=True).job_id, flush=True)
    except Exception as error:
        print("refused", error.code, error, flush=True)

producer = Producer.connect()
"""
FORKS: Final = {
    "os.fork": """
child = os.fork()
if child == 0:
    submit()
    os._exit(0)
os.waitpid(child, 0)
""",
    "multiprocessing": """
child = multiprocessing.get_context("fork").Process(target=submit)
child.start()
child.join()
""",
    "Celery's prefork pool": """
import celery
app = celery.Celery("host", broker="memory://", set_as_current=False)
app.conf.worker_redirect_stdouts = app.conf.broker_connection_retry_on_startup = False

@app.task(name="run")
def run():
    submit()
    os.kill(os.getppid(), signal.SIGTERM)

run.delay()
try:
    app.Worker(pool="prefork", concurrency=1, loglevel="CRITICAL").start()
except SystemExit:
    pass
""",
}


def said(environment: dict[str, str], program: str) -> list[str]:
    """What a program and its forked child print, line by line; Celery's greeting is left out."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return [line for line in done.stdout.splitlines() if line.startswith(("accepted", "refused"))]


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_submits_with_a_producer_whose_parent_had_only_asked_redis(
    fork: str, stack_environment: dict[str, str], producer: Producer
) -> None:
    bare = uuid.uuid4().hex
    use = f'producer.ledger.check()\nproducer._sender.send("{bare}", "aii.activate", "activate", {{}})\n'
    (line,) = said(stack_environment, PRELUDE + use + FORKS[fork])
    how, job_id = line.split()
    assert (how, producer.ledger.get(job_id).state) == ("accepted", JobState.QUEUED)


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_is_told_at_once_what_to_do_when_its_parent_had_used_s3(
    fork: str, stack_environment: dict[str, str], producer: Producer
) -> None:
    parent, child, after = said(stack_environment, PRELUDE + "submit()\n" + FORKS[fork] + "submit()\n")
    assert parent.startswith("accepted")
    assert child.startswith("refused forked This process was forked")
    assert "post_fork" in child
    assert after.startswith("accepted")  # the parent is as it was
