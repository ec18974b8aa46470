"""``aii worker``: run a worker in this terminal."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

import click

from tasks.command_line import Command
from tasks.logs import set_up_logs
from tasks.machine import cores, usable_cores
from tasks.names import QUEUES
from tasks.settings import load_settings

# How long a thread that computes in Python keeps Python's lock while others wait for it. A query waits for it after
# each search and each answer of Redis: with Python's usual 5 ms, for 30 ms beside one such thread.
SWITCH_S: Final = 0.0005


@click.command(cls=Command)
@click.option("--queues", default=",".join(QUEUES), show_default=True, help="Queues to serve, separated by commas.")
@click.option("--shard", default="", help="Search this part of every index, as 2/4. [default: AII_SHARD, or all]")
@click.option(
    "--log-level", default="INFO", show_default=True, type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"])
)
def worker(queues: str, shard: str, log_level: str) -> None:
    """Run a worker: activate and query until it is told to stop (SIGTERM lets running jobs finish)."""
    chosen = [name.strip() for name in queues.split(",") if name.strip()]
    if unknown := sorted(set(chosen) - set(QUEUES)) or not chosen:
        raise click.UsageError(f"--queues takes some of {', '.join(QUEUES)}; not {unknown or 'nothing'}.")
    if shard:
        os.environ["AII_SHARD"] = shard  # checked with the other settings
    share_cores()
    from workers.main import run_worker  # noqa: PLC0415  # loads torch: not for `aii --help`

    settings = load_settings()
    set_up_logs(getattr(logging, log_level), settings)
    sys.exit(run_worker(settings, chosen))


def share_cores() -> None:
    """Let a worker's threads leave each other the cores; before numpy and torch are loaded.

    Handlers are many, and run beside the device. Only the device's threads may be several for one operation, and they
    sleep between two operations instead of spinning. Numpy's would spin in every handler: with one worker on two cores,
    beside other programs, decoding took 31 ms instead of 2.4, and 6 queries of a backlog were done a second, not 26.
    """
    sys.setswitchinterval(SWITCH_S)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if cores() < usable_cores():  # torch sees the machine's cores, and not a container's quota
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
