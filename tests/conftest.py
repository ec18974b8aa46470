"""Real servers for all tests that need them: one Redis and one S3 server for the session, workers as processes.

They are started by ``aii up`` itself, in a folder of their own. Where they cannot be started, tests fail: nothing is
skipped.
"""

from __future__ import annotations

from tests.machine import leave_to_the_tests

leave_to_the_tests()  # before torch, FAISS and the programs' settings are loaded

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer import Producer
from tasks.connection import connect_redis
from tasks.ledger.ledger import Ledger
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.collections import Place
from tests.stack import WorkerProcess, running_stack, settings_of

# A shell starts what runs in the background with SIGINT ignored, and processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A killed worker's jobs come back soon; a live worker on a busy machine still renews its lease in time. Redis is
# emptied between tests, which is no reason to repair anything. How full the disk of this machine is says nothing.
_TERMS = {
    "AII_LEASE_S": "10",
    "AII_GRACE_S": "2",
    "AII_RECONCILE_EVERY_S": "0.5",
    "AII_AUTO_REPAIR": "0",
    "AII_TARGET_FREE_DISK_SHARE": "0",
}
_WAITING = {"test_suspects.py", "test_stopping.py", "test_services_away.py"}


@pytest.fixture(scope="session")
def stack_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment variables that lead a process to the session's Redis and S3."""
    with running_stack(tmp_path_factory.mktemp("stack")) as environment:
        yield environment | _TERMS


@pytest.fixture(scope="session")
def shared_settings(stack_environment: dict[str, str]) -> Settings:
    """Settings of the session's servers, as the programs themselves read them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack_environment.items():
            if name.startswith("AII_"):
                patch.setenv(name, value)
        return settings_of(Path(stack_environment["AII_STATE_DIR"]))


@pytest.fixture
def settings(shared_settings: Settings) -> Settings:
    """The same servers with an emptied Redis; objects in S3 are named by content, so old ones do not disturb."""
    empty_redis(shared_settings)
    return shared_settings


def empty_redis(settings: Settings) -> None:
    with connect_redis(settings) as client:
        client.flushdb()


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return ObjectStore.connect(settings)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger.connect(settings)
    yield ledger
    ledger.disconnect()


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    producer = Producer.connect(settings)
    yield producer
    producer.close()


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Iterator[Place]:
    """A collection of its own, opened."""
    place = Place.published(settings, tmp_path / "cache")
    yield place
    place.close()


@pytest.fixture
def start_worker(
    settings: Settings, stack_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers that end with the test."""
    started: list[WorkerProcess] = []

    def start(
        queues: str = "query,activate,index", prepare: Callable[[], None] | None = None, **environment: str
    ) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(WorkerProcess(stack_environment | environment, settings, log, queues, prepare))
        return started[-1].wait_until_ready()

    yield start
    for worker in started:
        if worker.alive():
            worker.kill()


@pytest.fixture(scope="module")
def shared_worker(
    shared_settings: Settings, stack_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """One worker for the tests of a module that only need some worker: its start takes seconds.

    Redis is emptied beside it between tests, which a worker survives. What it registered before stays in its memory:
    tests that share it activate different images, or one image under one asset id.
    """
    empty_redis(shared_settings)
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    worker = WorkerProcess(stack_environment, shared_settings, log, "query,activate,index")
    yield worker.wait_until_ready()
    if worker.alive():
        worker.kill()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes of tests: one more than cores, since tests wait for half of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: a mistake shows early. After those, what waits for deadlines and leaves the cores to others: at
    the end of a run with several processes, one would wait alone."""
    order = {"unit": 0, "integration": 2, "e2e": 3, "faults": 4}
    items.sort(key=lambda item: 1 if item.path.name in _WAITING else order.get(item.path.parent.name, 0))
