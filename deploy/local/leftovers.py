"""Processes that an earlier stack left behind, found by the lock that they inherited, and ended.

They are asked to end by the kernel already when their supervisor dies (see :mod:`deploy.local.orphans`). One that is
busy, frozen, or waits for a Redis that ended before it, may stay for long.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

__all__ = ["end", "holders"]

_KILL_TIMEOUT_S: Final = 5.0
_SHOWN_WORDS: Final = 3


def holders(lock: Path) -> list[psutil.Process]:
    """Other processes of this user that have `lock` open for writing; readers only ask for the status."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _holds(process, lock)]


def _holds(process: psutil.Process, lock: Path) -> bool:
    try:
        opened = process.open_files()
    except (psutil.Error, OSError):  # gone meanwhile, or of another user
        return False
    return any(Path(file.path) == lock and getattr(file, "mode", "r+") != "r" for file in opened)


def end(processes: Sequence[psutil.Process], report: Callable[[str], None], terminate_timeout_s: float) -> None:
    """Ask them to end, and kill those that have not after `terminate_timeout_s`. Their work is done by others later:
    jobs have leases, and every step of a job can be repeated."""
    for process in processes:
        report(f"{_described(process)} is left from an earlier stack, and is ended.")
        with suppress(psutil.Error):
            process.terminate()
            process.resume()  # a frozen one would not hear it
    _, alive = psutil.wait_procs(processes, timeout=terminate_timeout_s)
    for process in alive:
        report(f"{_described(process)} is killed: it did not end within {terminate_timeout_s:.0f} s.")
        _kill_group(process)
    psutil.wait_procs(alive, timeout=_KILL_TIMEOUT_S)


def _kill_group(process: psutil.Process) -> None:
    """A service is the leader of its group; another process that inherited the lock is killed alone."""
    with suppress(psutil.Error, ProcessLookupError):
        if os.getpgid(process.pid) == process.pid and process.is_running():
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _described(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        program, *words = process.cmdline() or [process.name()]
        shown = " ".join([Path(program).name, *words[: _SHOWN_WORDS - 1]])
        return f"Process {process.pid} ({shown})"
    return f"Process {process.pid}"
