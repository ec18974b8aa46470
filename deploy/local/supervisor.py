"""Starts services, restarts those that die, stops them in reverse order.

Everything happens in the thread that owns the supervisor; a signal handler only calls :meth:`Supervisor.interrupt`.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deploy.local.orphans import die_with_parent
from deploy.local.services import PACKAGES, Service
from deploy.local.stack import make_private_folder
from tasks.errors import Unavailable

log = logging.getLogger(__name__)

_TICK_S = 0.1
_KILL_TIMEOUT_S = 5.0
_KILL_AT_ONCE = 2  # interrupts
_LOG_LIMIT = 16 * 2**20
_TAIL_BYTES = 4000


class Interrupted(Exception):  # not an error: the user wanted it
    """The stack was asked to stop while it was starting."""


@dataclass
class Backoff:
    """How long to wait before a restart: doubled each time, reset once a process has run for `healthy_s`."""

    first_s: float = 1.0
    longest_s: float = 30.0
    healthy_s: float = 60.0
    _next_s: float = 0.0

    def after(self, ran_s: float) -> float:
        """Seconds to wait, given how long the process has run."""
        delay = self.first_s if ran_s >= self.healthy_s or not self._next_s else self._next_s
        self._next_s = min(2 * delay, self.longest_s)
        return delay


@dataclass
class Child:
    """A service and its current process; none between a death and the restart."""

    service: Service
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """Keeps the given services running. Calls `report` with one line for each event that a person should know of."""

    def __init__(self, logs: Path, report: Callable[[str], None], inherit: Sequence[int] = ()) -> None:
        self._logs = make_private_folder(logs)
        self._report = report
        self._inherit = tuple(inherit)
        self._groups: list[list[Child]] = []
        self._interrupts = 0

    def interrupt(self) -> None:
        """Ask for a stop; a second call kills what has not stopped yet. Safe in a signal handler."""
        self._interrupts += 1

    def start(self, *services: Service) -> None:
        """Start all of them at once; return when each answers.

        Raises Unavailable when one exits or does not answer in time, Interrupted when asked to stop.
        """
        children = [Child(service, self._logs / f"{service.name}.log") for service in services]
        self._groups.append(children)
        for child in children:
            self._spawn(child)
        for child in children:
            self._await(child)
            detail = f" ({child.service.detail})" if child.service.detail else ""
            self._report(f"  {child.service.name} answers{detail}")

    def watch(self) -> None:
        """Restart the services that end, until interrupted."""
        while not self._interrupts:
            for child in self._children():
                self._restart_if_ended(child)
            time.sleep(_TICK_S)

    def stop(self) -> None:
        """Stop everything, last started first. Services that started together are asked together, and each is killed
        when its time is over; a second interrupt, before or meanwhile, kills at once."""
        while self._groups:
            self._stop_group(self._groups.pop())

    def check(self, probe: Callable[[], None]) -> None:
        """Call `probe`, in a thread, since one that waits for a silent server cannot be interrupted. Raises what it
        raises, and Interrupted as soon as a stop is asked for."""
        asked: Future[None] = Future()
        threading.Thread(target=_run_into, args=(asked, probe), name="probe", daemon=True).start()
        while True:
            if self._interrupts:
                raise Interrupted
            if wait([asked], timeout=_TICK_S).done:
                return asked.result()

    def _spawn(self, child: Child) -> None:
        _rotate(child.log_path)
        child.log_path.touch(0o600)
        with child.log_path.open("ab") as output:
            child.process = subprocess.Popen(
                child.service.command,
                env=dict(child.service.environment),
                cwd=PACKAGES,  # `-m workers` must find ours, whatever the caller's folder holds
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=self._inherit,
                # Ctrl-C reaches the supervisor only. A session of its own would do that too, but Linux shares the cores
                # among sessions first: one worker's activations would count as much as another worker's queries.
                process_group=0,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one call of C, whatever threads wait for an answer
            )
        child.started_at = time.monotonic()
        log.info("started", extra={"service": child.service.name, "pid": child.process.pid})

    def _children(self) -> list[Child]:
        return [child for group in self._groups for child in group]

    def _await(self, child: Child) -> None:
        deadline = child.started_at + child.service.start_timeout_s
        while (problem := self._problem(child)) is not None:
            if time.monotonic() > deadline:
                raise _failed(child, f"does not answer after {child.service.start_timeout_s:.0f} s: {problem}")
            time.sleep(_TICK_S)

    def _problem(self, child: Child) -> str | None:
        """Why the service does not count as answering; None when it answers."""
        assert child.process is not None
        problem = None
        try:
            self.check(partial(child.service.probe, child.process.pid))
        except Unavailable as error:
            problem = error.message
        if child.process.poll() is not None:  # the answer may have come from another process on its port
            raise _failed(child, describe_exit(child.process.returncode))
        return problem

    def _restart_if_ended(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.restart_at:
                self._try_spawn(child)
        elif child.process.poll() is not None:
            delay = child.backoff.after(now - child.started_at)
            how = describe_exit(child.process.returncode)
            self._report(f"{child.service.name} {how}; starting it again in {delay:.0f} s. Log: {child.log_path}")
            child.process, child.restart_at = None, now + delay

    def _try_spawn(self, child: Child) -> None:
        """Start again; a full disk is a reason to try later, not to stop the others."""
        try:
            self._spawn(child)
        except OSError as error:
            delay = child.backoff.after(0)
            self._report(f"{child.service.name} cannot be started ({error.strerror}); again in {delay:.0f} s")
            child.restart_at = time.monotonic() + delay

    def _stop_group(self, group: Sequence[Child]) -> None:
        running = [(child, child.process) for child in group if child.process and child.process.poll() is None]
        for _, process in running:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # a frozen one would not hear it
        asked_at = time.monotonic()
        for child, process in running:
            deadline = asked_at + child.service.stop_timeout_s
            while process.poll() is None and time.monotonic() < deadline and self._interrupts < _KILL_AT_ONCE:
                time.sleep(_TICK_S)
            if process.poll() is None:
                self._kill(child, process)

    def _kill(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        self._report(f"{child.service.name} is killed: it did not stop in time. Log: {child.log_path}")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its group is its own
        with suppress(subprocess.TimeoutExpired):  # one that waits for a disk is the kernel's
            process.wait(_KILL_TIMEOUT_S)


def _run_into(asked: Future[None], probe: Callable[[], None]) -> None:
    try:
        probe()
    except BaseException as error:
        asked.set_exception(error)
    else:
        asked.set_result(None)


def _failed(child: Child, how: str) -> Unavailable:
    return Unavailable(f"{child.service.name} {how}. The end of {child.log_path}:\n{tail(child.log_path)}")


def describe_exit(status: int) -> str:
    """An exit status in words; a negative one is the signal that ended the process."""
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def tail(path: Path) -> str:
    """The last lines of a log, indented."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-20:]
    return "\n".join(f"  {line}" for line in lines)


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
