"""Workers and commands forked from a process that has imported torch and FAISS and prepared the extractor: both take
longer than most tests."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.waiting import LIMIT_S

__all__ = ["fork_worker", "forkserver", "run_forked"]


def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")  # not a fork of this process, with its threads and sockets
    tests = ["tests.collections", "tests.forked", "tests.faults.fleet", "tests.prepared"]
    context.set_forkserver_preload(["workers.main", *tests])
    return context


def fork_worker(
    environment: Mapping[str, str], queues: str, log: Path, prepare: Callable[[], None] | None = None
) -> ForkServerProcess:
    """``aii worker`` with the settings of `environment`; `prepare` is called in its process first."""
    process = forkserver().Process(target=_work, args=(dict(environment), queues, log, prepare))
    process.start()
    return process


def run_forked(
    environment: Mapping[str, str], arguments: Sequence[str], stdin: Path
) -> subprocess.CompletedProcess[str]:
    """``aii`` with these arguments and the settings of `environment`, to its end."""
    with TemporaryDirectory() as folder:
        streams = stdin, *(Path(folder) / name for name in ("stdout", "stderr"))
        process = forkserver().Process(target=_command, args=(dict(environment), tuple(arguments), streams))
        process.start()
        process.join(2 * LIMIT_S)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["aii", *arguments], 2 * LIMIT_S)
        stdout, stderr = (stream.read_text() for stream in streams[1:])
        return subprocess.CompletedProcess(["aii", *arguments], process.exitcode, stdout, stderr)


def _work(environment: dict[str, str], queues: str, log: Path, prepare: Callable[[], None] | None) -> None:
    _take_settings(environment)
    _write_to(log, log)
    from tests.prepared import use_prepared  # noqa: PLC0415  # only here, and what goes wrong is in the log
    from workers.commands.worker import worker  # noqa: PLC0415

    use_prepared()
    if prepare:
        prepare()
    worker.main(["--queues", queues], prog_name="aii worker")


def _command(environment: dict[str, str], arguments: tuple[str, ...], streams: tuple[Path, Path, Path]) -> None:
    _take_settings(environment)
    stdin, stdout, stderr = streams
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0)
    _write_to(stdout, stderr)
    from producer.cli import aii  # noqa: PLC0415

    sys.argv = ["aii", *arguments]
    aii.main(prog_name="aii")


def _take_settings(environment: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AII_")]:
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if name.startswith("AII_")})


def _write_to(stdout: Path, stderr: Path) -> None:
    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream.fileno())
