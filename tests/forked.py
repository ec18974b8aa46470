"""Workers forked from a process that has imported torch and FAISS: importing them takes longer than most tests."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

__all__ = ["fork_worker", "forkserver"]


def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")  # not a fork of this process, with its threads and sockets
    context.set_forkserver_preload(["workers.main", "tests.collections", "tests.forked", "tests.faults.fleet"])
    return context


def fork_worker(
    environment: Mapping[str, str], queues: str, log: Path, prepare: Callable[[], None] | None = None
) -> ForkServerProcess:
    """``aii worker`` with the settings of `environment`; `prepare` is called in its process first."""
    process = forkserver().Process(target=_run, args=(dict(environment), queues, log, prepare))
    process.start()
    return process


def _run(environment: dict[str, str], queues: str, log: Path, prepare: Callable[[], None] | None) -> None:
    for name in [name for name in os.environ if name.startswith("AII_")]:
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if name.startswith("AII_")})
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    from workers.commands.worker import worker  # noqa: PLC0415  # only here, and what goes wrong is in the log

    if prepare:
        prepare()
    worker.main(["--queues", queues], prog_name="aii worker")
