"""Real servers and real workers for tests and benchmarks, started by ``aii up`` and ``aii worker`` themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from click.testing import CliRunner

from deploy.local.instance import running
from deploy.local.stack import write_stack_file
from producer import Producer
from producer.cli import aii as program
from tasks.connection import RedisClient, connect_redis
from tasks.names import QUEUES, worker_presence
from tasks.settings import Settings
from tests.forked import fork_worker, run_forked
from tests.ports import reserved_port
from tests.waiting import LIMIT_S, wait_for

__all__ = [
    "AII",
    "Service",
    "WorkerProcess",
    "aii",
    "aii_here",
    "reserve_ports",
    "running_service",
    "running_stack",
    "settings_of",
]


AII = (sys.executable, "-m", "producer")


def aii(
    environment: dict[str, str], *arguments: str, stdin: Path = Path(os.devnull)
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does: forked where it may be, as a worker is (:class:`WorkerProcess`)."""
    if _plain(environment) == _plain(os.environ):
        return run_forked(environment, arguments, stdin)
    command = [*AII, *arguments]
    with stdin.open("rb") as given:
        return subprocess.run(
            command, env=environment, stdin=given, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False
        )


def aii_here(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same within this process, for commands that load FAISS: importing it again would take seconds each time."""
    result = CliRunner().invoke(program, arguments, env=environment)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@contextmanager
def running_stack(state: Path, workers: int | None = 0, **more: str) -> Iterator[dict[str, str]]:
    """Run Redis, S3 and `workers` workers (None: as many as `aii up` starts by default) in the folder `state`, with
    `more` variables.

    Yields the environment with which a process finds them.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AII_")} | {"AII_STATE_DIR": str(state)}
    environment |= more
    if not (state / "stack.env").exists():
        reserve_ports(state)
    log = (state / "up.log").open("w")
    command = [sys.executable, "-c", "from deploy.local.cli import up; up()", "--no-flower"]
    command += [] if workers is None else ["--workers", str(workers)]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: (status := running(state)) and status.ready, "the stack did not start")
        yield environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)
        log.close()


def reserve_ports(state: Path) -> None:
    """Let a new stack in `state` have ports that no test beside it is given, over its restarts as well."""
    redis_url, s3_endpoint = f"redis://127.0.0.1:{reserved_port()}/0", f"127.0.0.1:{reserved_port()}"
    write_stack_file(state / "stack.env", {"redis_url": redis_url, "s3_endpoint": s3_endpoint})


def settings_of(state: Path) -> Settings:
    """Settings of that stack, read as its programs read them."""
    return Settings(_env_file=state / "stack.env")  # type: ignore[call-arg]


class WorkerProcess:
    """A real worker, in a process of its own.

    It is forked (see :mod:`tests.forked`), unless `environment` differs from this process's in more than settings:
    Python and the libraries read such variables when they are loaded. With `prepare`, which is called in it first, it
    is always forked.
    """

    def __init__(
        self, environment: dict[str, str], settings: Settings, log: Path, queues: str,
        prepare: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self.log = log
        log.touch()
        if prepare or _plain(environment) == _plain(os.environ):
            self._process: _Process = fork_worker(environment, queues, log, prepare)
        else:
            self._process = _Spawned(environment, queues, log)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def alive(self) -> bool:
        return self._process.is_alive()

    def wait_until_ready(self) -> WorkerProcess:
        with connect_redis(self._settings) as client:
            ready = worker_presence(f"*-{self.pid}")
            wait_for(lambda: client.keys(ready) or not self.alive(), "the worker did not get ready")
        if not self.alive():
            self.kill()
            raise AssertionError(f"the worker ended: {self.log.read_text()}")
        return self

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def stop(self) -> int:
        """Send SIGTERM, return the exit status; a worker that does not end in time is killed."""
        self._process.terminate()
        self._process.join(LIMIT_S)
        try:
            assert self._process.exitcode is not None, "the worker did not end"
            return self._process.exitcode
        finally:
            self.kill()


def _plain(environment: Mapping[str, str]) -> dict[str, str]:
    """Without settings, and what pytest itself writes there."""
    return {k: v for k, v in environment.items() if not k.startswith(("AII_", "PYTEST_"))}


@dataclass(frozen=True)
class Service:
    """A stack with one worker, a client of its Redis and a producer."""

    settings: Settings
    worker: WorkerProcess
    client: RedisClient
    producer: Producer


@contextmanager
def running_service() -> Iterator[Service]:
    """In a folder of its own."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = stack.enter_context(running_stack(state))
        settings = settings_of(state)
        worker = WorkerProcess(environment, settings, state / "worker.log", ",".join(QUEUES)).wait_until_ready()
        stack.callback(worker.kill)
        client = stack.enter_context(connect_redis(settings))
        yield Service(settings, worker, client, stack.enter_context(Producer.connect(settings)))


class _Process(Protocol):
    """What :class:`multiprocessing.Process` has."""

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def is_alive(self) -> bool: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


class _Spawned:
    """``python -m workers``, as `aii up` starts it."""

    def __init__(self, environment: dict[str, str], queues: str, log: Path) -> None:
        command = [sys.executable, "-m", "workers", "--queues", queues]
        with log.open("a") as output:
            self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    @property
    def pid(self) -> int | None:
        return int(self._process.pid)

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def is_alive(self) -> bool:
        return self.exitcode is None

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def join(self, timeout: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
