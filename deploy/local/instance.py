"""One stack per state folder: the locks that ensure it, and the status that a second terminal reads.

Two locks, as two questions have different answers after a supervisor was killed. ``supervisor.lock`` is the
supervisor's alone: it is free as soon as that process is gone. ``stack.lock`` is inherited by its children, so it is
held as long as any of them lives: two servers never write the same data folder. Who starts a stack takes the first,
ends those that still hold the second, and takes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.local.stack import make_private_folder
from tasks.errors import Unavailable

_ORPHANS_TIMEOUT_S = 10.0
_LOCK_TIMEOUT_S: Final = 5.0
_STATUS_BYTES: Final = 4096  # never shortened: writing over a file's own bytes works on a full disk as well


@dataclass(frozen=True)
class Status:
    """What a running supervisor reports."""

    pid: int
    ready: bool = False
    lines: Mapping[str, str] = field(default_factory=dict)


class Instance:
    """The right to run the stack of one state folder."""

    def __init__(self, supervisor_lock: int, stack_lock: int) -> None:
        self._supervisor_lock = supervisor_lock
        self.descriptor = stack_lock  # for the children

    def report(self, status: Status) -> None:
        """Write `status` for other processes to read."""
        _write(self.descriptor, status)

    def close(self) -> None:
        """Give the right up."""
        os.close(self.descriptor)
        os.close(self._supervisor_lock)


def claim(
    state: Path, report: Callable[[str], None] = lambda line: None, terminate_timeout_s: float = _ORPHANS_TIMEOUT_S
) -> Instance | Status:
    """The right to run the stack of `state`, or the status of the stack that has it.

    Processes that an earlier stack left behind are named by `report` and ended: asked first, killed after
    `terminate_timeout_s`.
    Raises Unavailable when some cannot be ended, as those of another user.
    """
    make_private_folder(state)
    supervisor_lock = os.open(state / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    stack_lock = os.open(_stack_lock(state), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if _locked(supervisor_lock):
            status = _take(state, stack_lock, report, terminate_timeout_s)
        else:
            status = _read(stack_lock) or Status(0)
        if status is None:
            return Instance(supervisor_lock, stack_lock)
    except BaseException:
        os.close(stack_lock)
        os.close(supervisor_lock)
        raise
    os.close(stack_lock)
    os.close(supervisor_lock)
    return status


def _take(state: Path, stack_lock: int, report: Callable[[str], None], terminate_timeout_s: float) -> Status | None:
    """Lock the stack for this process; or the status of a supervisor of version 0.1.0, which had one lock only."""
    if not _locked(stack_lock):
        from deploy.local.leftovers import end, holders  # noqa: PLC0415  # psutil is needed after an accident only

        status, left = _read(stack_lock), holders(_stack_lock(state))
        if status and status.pid in {process.pid for process in left}:
            return status
        _write(stack_lock, Status(os.getpid()))
        end(left, report, terminate_timeout_s)
        _wait_for(stack_lock, _stack_lock(state))
    _write(stack_lock, Status(os.getpid()))
    return None


def _wait_for(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while not _locked(descriptor):
        if time.monotonic() > deadline:
            raise Unavailable(f"Processes of an earlier stack still hold {path}: stop them and start again.")
        time.sleep(0.05)


def running(state: Path) -> Status | None:
    """The status of the stack whose supervisor runs on this folder; None when none does."""
    try:
        descriptor = os.open(state / "supervisor.lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _locked(descriptor) else _status_of_the_living(_stack_lock(state))
    finally:
        os.close(descriptor)


def _stack_lock(state: Path) -> Path:
    return state / "stack.lock"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(descriptor: int, status: Status) -> None:
    text = json.dumps({"pid": status.pid, "ready": status.ready, "lines": dict(status.lines)}).encode()
    os.pwrite(descriptor, text.ljust(_STATUS_BYTES), 0)


def _status_of_the_living(path: Path) -> Status | None:
    """None while a supervisor has not replaced the status of one before it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        status = _read(descriptor)
        if status:
            os.kill(status.pid, 0)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    return status


def _read(descriptor: int) -> Status | None:
    """None while nothing, or nothing that can be read, was written."""
    try:
        return Status(**json.loads(os.pread(descriptor, 1 << 16, 0)))
    except ValueError:
        return None
