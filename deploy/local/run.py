"""Starts the local stack, keeps it running, stops it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from deploy.local import services
from deploy.local.instance import Instance, Status, claim, running
from deploy.local.stack import Stack, plan_stack, read_stack_file, write_stack_file
from deploy.local.supervisor import Supervisor
from tasks.connection import redis_address
from tasks.errors import DiskUnavailable, RedisUnavailable, Unavailable
from tasks.settings import Settings
from tasks.state_folder import stack_file, state_dir

Report = Callable[[str], None]
_PORT_LOSSES = 5  # a free port may be taken by another program before our service listens on it


def run(report: Report, *, workers: int | None, flower: bool) -> None:
    """Run the stack until SIGINT or SIGTERM; return at once when it runs already. `workers` None: as many as suit this
    machine.

    Raises:
        Unavailable: a service of the environment does not answer, one of ours did not start, the state folder cannot
            be written, or processes of an earlier stack cannot be ended.
        InvalidSetting: a setting cannot be used.
        Interrupted: it was asked to stop before everything answered.
    """
    state, report = state_dir(), _undisturbed(report)
    with _disk_errors(state):
        claimed = claim(state, report)
        if isinstance(claimed, Status):
            report(describe(claimed))
        else:
            _run(claimed, state, report, workers=workers, flower=flower)


def _run(claimed: Instance, state: Path, report: Report, *, workers: int | None, flower: bool) -> None:
    supervisor = Supervisor(state / "logs", report, inherit=[claimed.descriptor])
    _stop_on_signals(supervisor)
    try:
        stack, count = _start(supervisor, state, report, workers=workers, flower=flower)
        _announce(claimed, stack, report, workers=count, flower=flower)
        supervisor.watch()
        report("Stopping.")
    finally:
        supervisor.stop()


def _undisturbed(report: Report) -> Report:
    """A terminal that is gone, or a full disk under the output, is no reason to leave services behind."""

    def report_if_possible(line: str) -> None:
        with suppress(OSError):
            report(line)

    return report_if_possible


@contextmanager
def _disk_errors(state: Path) -> Iterator[None]:
    """Raise DiskUnavailable for what the system says of files."""
    try:
        yield
    except OSError as error:
        place = error.filename or state
        raise DiskUnavailable(
            f"{place} cannot be written: {error.strerror}. Free some space, or set AII_STATE_DIR."
        ) from error


def report_status(report: Report) -> bool:
    """Report the addresses of the running stack, or that none runs; returns whether it is ready."""
    status = running(state_dir())
    report(describe(status) if status else f"No stack is running in {state_dir()}.")
    return bool(status and status.ready)


def _start(
    supervisor: Supervisor, state: Path, report: Report, *, workers: int | None, flower: bool
) -> tuple[Stack, int]:
    """Start anew on other ports when another program took one; returns the stack and the number of its workers."""
    stack = plan_stack(read_stack_file(stack_file()))
    report(f"Starting the stack in {state}.")
    for _ in range(_PORT_LOSSES):
        try:
            return stack, _start_planned(stack, supervisor, state, workers=workers, flower=flower)
        except Unavailable:
            supervisor.stop()
            planned, stack = stack, plan_stack(stack.supplied)
            if stack == planned:
                raise
            report("Another program took a port meanwhile; starting again on others.")
    return stack, _start_planned(stack, supervisor, state, workers=workers, flower=flower)


def _start_planned(stack: Stack, supervisor: Supervisor, state: Path, *, workers: int | None, flower: bool) -> int:
    """Returns the number of workers."""
    count = services.workers_here(stack.settings) if workers is None else workers
    later = services.worker_services(stack, state, count) if count else []
    later += [services.flower_service(stack, state)] if flower else []
    later += [services.gateway_service(stack, state)] if services.gateway_wanted(stack.settings) else []
    later += services.ingest_services(stack, state)
    _start_stores(supervisor, stack, state)
    later += [services.hooks_service(stack, state)] if services.hooks_wanted(stack.settings) else []
    write_stack_file(stack_file(), stack.supplied)  # only now: both stores have answered
    supervisor.start(*later)
    return count


def _start_stores(supervisor: Supervisor, stack: Stack, state: Path) -> None:
    """Start Redis and S3, or see that those of the environment answer."""
    if not stack.owns_redis:
        supervisor.check(partial(services.ping_redis, stack.settings))
    if not stack.owns_s3:
        supervisor.check(partial(services.ensure_buckets, stack.settings))
    own = [services.redis_service(stack, state)] if stack.owns_redis else []
    own += [services.s3_service(stack, state)] if stack.owns_s3 else []
    supervisor.start(*own)


def _stop_on_signals(supervisor: Supervisor) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup set it to be ignored
            signal.signal(number, lambda *_: supervisor.interrupt())


def _announce(instance: Instance, stack: Stack, report: Report, *, workers: int, flower: bool) -> None:
    settings = stack.settings
    scheme = "https" if settings.s3_secure else "http"
    lines = {"Redis": _redis(settings), "S3": f"{scheme}://{settings.s3_endpoint}"}
    if workers:
        lines["Workers"] = f"{workers} ready; logs in {state_dir() / 'logs'}"
    if flower:
        lines["Flower"] = services.flower_url(settings)
        lines["Login"] = f"user {settings.flower_user}, password in {stack_file()} (AII_FLOWER_PASSWORD)"
    if services.gateway_wanted(settings):
        lines["Gateway"] = services.gateway_url(settings)
    if settings.ingest_buckets:
        lines["Buckets"] = ", ".join(settings.ingest_buckets)
    status = Status(pid=os.getpid(), ready=True, lines=lines)
    instance.report(status)
    report(describe(status))
    report("Next, in a second terminal:  aii activate DIR   aii query FILE   aii status\nCtrl-C stops everything.")


def _redis(settings: Settings) -> str:
    """Address and version; a user of the environment's Redis may not be allowed to ask for the latter."""
    with suppress(RedisUnavailable):
        return f"{redis_address(settings)} ({services.redis_version(settings)})"
    return redis_address(settings)


def describe(status: Status) -> str:
    """A small table of addresses, or a line that the stack is being started."""
    if not status.ready:
        return f"The stack is being started by process {status.pid}."
    rows = "\n".join(f"  {name:8}{value}" for name, value in status.lines.items())
    return f"The stack is up (process {status.pid}):\n{rows}"
