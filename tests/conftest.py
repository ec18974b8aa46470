"""Real servers for all tests that need them: one Redis and one S3 server for the session, workers as processes.

They are started by ``aii up`` itself, in a folder of their own. Where they cannot be started, tests fail: nothing is
skipped.
"""

from __future__ import annotations

from tests.machine import leave_to_the_tests

leave_to_the_tests()  # before torch, FAISS and the programs' settings are loaded

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer import Producer
from tasks.connection import connect_redis
from tasks.ledger.ledger import Ledger
from tasks.machine import cores, memory_bytes
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
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
_FOLDERS = ("unit", "integration", "e2e", "faults")
# The files of tests that take longest; what computes and what waits take turns.
_LONGEST = (
    "test_scenarios", "test_evaluate", "test_redis_failover", "test_flower_browser", "test_suspects",
    "test_collection_upkeep", "test_stopped_worker", "test_restore", "test_redis_addresses", "test_own_collection",
    "test_flower_workers", "test_services_away", "test_verdicts",
)  # fmt: skip
_PROCESS_BYTES = 2 * 2**30  # with its servers and workers


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
    """The same servers, without jobs of earlier tests. Other objects in S3 are named by content and do not disturb."""
    forget_jobs(shared_settings)
    return shared_settings


def forget_jobs(settings: Settings) -> None:
    """Empty Redis, and delete the documents in S3: a job's id follows from what it asks for, which tests share."""
    with connect_redis(settings) as client:
        client.flushdb()
    store = ObjectStore.connect(settings)
    for key in list(store.list_keys(Bucket.RESULTS)):
        store.delete(Bucket.RESULTS, key)


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
    forget_jobs(shared_settings)
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    worker = WorkerProcess(stack_environment, shared_settings, log, "query,activate,index")
    yield worker.wait_until_ready()
    if worker.alive():
        worker.kill()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes of tests: two for each core, since tests wait for half of their time, where memory allows that."""
    return max(1, min(2 * cores(), memory_bytes() // _PROCESS_BYTES))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One process runs fast tests first: a mistake shows early. Several take a file each, and those that take longest
    first: otherwise one process would be at work alone in the end."""
    several = hasattr(config, "workerinput")
    items.sort(key=lambda item: _slowest_first(item.path) if several else _fastest_first(item.path))


def _fastest_first(path: Path) -> int:
    return _FOLDERS.index(path.parent.name) if path.parent.name in _FOLDERS else len(_FOLDERS)


def _slowest_first(path: Path) -> tuple[int, int]:
    named = _LONGEST.index(path.stem) if path.stem in _LONGEST else len(_LONGEST)
    return named, -_fastest_first(path)
