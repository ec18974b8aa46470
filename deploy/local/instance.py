"""One stack per state folder: the lock that ensures it, and the status that a second terminal reads from it.

The supervisor's children inherit the lock's descriptor, so it is held as long as any of them lives: two servers never
write the same data folder, even after the supervisor was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.stack import make_private_folder
from tasks.errors import Unavailable

_ORPHANS_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Status:
    """What a running supervisor reports."""

    pid: int
    ready: bool = False
    lines: Mapping[str, str] = field(default_factory=dict)


class Instance:
    """The right to run the stack of one state folder."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.report(Status(os.getpid()))

    def report(self, status: Status) -> None:
        """Write `status` for other processes to read."""
        text = json.dumps({"pid": status.pid, "ready": status.ready, "lines": dict(status.lines)}).encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text, 0)


def claim(state: Path, timeout_s: float = _ORPHANS_TIMEOUT_S) -> Instance | Status:
    """The right to run the stack of `state`, or the status of the stack that has it.

    Raises Unavailable when the supervisor is gone but processes of its stack are not.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        instance = _try_claim(state)
        status = None if instance else running(state)
        if instance or status:
            return instance or status  # type: ignore[return-value]  # one of them is not None
        if time.monotonic() > deadline:
            raise Unavailable(f"Processes of an earlier stack still hold {_lock(state)}: stop them and start again.")
        time.sleep(0.1)


def _try_claim(state: Path) -> Instance | None:
    make_private_folder(state)
    descriptor = os.open(_lock(state), os.O_RDWR | os.O_CREAT, 0o600)
    if _locked(descriptor):
        return Instance(descriptor)
    os.close(descriptor)
    return None


def running(state: Path) -> Status | None:
    """The status of the stack whose supervisor runs on this folder; None when none does."""
    try:
        descriptor = os.open(_lock(state), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        return None if _locked(descriptor) else _read(descriptor)
    finally:
        os.close(descriptor)


def _lock(state: Path) -> Path:
    return state / "stack.lock"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> Status | None:
    """None when the supervisor is dead, or just about to write."""
    try:
        status = Status(**json.loads(os.pread(descriptor, 1 << 16, 0)))
        os.kill(status.pid, 0)
    except (ValueError, ProcessLookupError):
        return None
    return status
