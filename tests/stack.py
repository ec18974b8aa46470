"""Real servers and real workers for tests and benchmarks, started by ``aii up`` and ``aii worker`` themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from deploy.local.instance import running
from deploy.local.stack import write_stack_file
from producer.cli import aii as program
from tasks.connection import connect_redis
from tasks.names import worker_presence
from tasks.settings import Settings
from tests.ports import reserved_port
from tests.waiting import LIMIT_S, wait_for

__all__ = ["AII", "WorkerProcess", "aii", "aii_here", "reserve_ports", "running_stack", "settings_of"]


AII = (sys.executable, "-c", "from producer.cli import aii; aii()")


def aii(
    environment: dict[str, str], *arguments: str, stdin: Path = Path(os.devnull)
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
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
def running_stack(state: Path, workers: int | None = 0) -> Iterator[dict[str, str]]:
    """Run Redis, S3 and `workers` workers (None: as many as `aii up` starts by default) in the folder `state`.

    Yields the environment with which a process finds them.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AII_")} | {"AII_STATE_DIR": str(state)}
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
    """A real worker, in a process of its own."""

    def __init__(self, environment: dict[str, str], settings: Settings, log: Path, queues: str) -> None:
        self._settings = settings
        self._log = log.open("a")
        command = [sys.executable, "-m", "workers", "--queues", queues]
        self._process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

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
        self._process.wait()
        self._log.close()

    def stop(self) -> int:
        """Send SIGTERM, return the exit status; a worker that does not end in time is killed."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(LIMIT_S)
        finally:
            self.kill()
