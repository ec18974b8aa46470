"""What one client's backlog costs another: ``python -m tests.benchmarks.shares [--backlog 100000]``.

A stack with one worker. A client keeps some jobs open and submits the next as one ends: alone, and beside a backlog of
another client. That is jobs of one image, written into the ledger and the share queue many at a time, as submitting
each through a producer would take minutes; the worker runs those that it reaches. Of a job that has the worker to
itself, two things become slower: it waits for its turn, and those that run beside it take their part of the device.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final

import click

from producer import Producer
from tasks.connection import connect_redis
from tasks.ledger.ledger import Ledger
from tasks.messages import Request
from tasks.shares import share_queue
from tests.photographs import crops
from tests.stack import running_stack, settings_of

BUSY, OTHER = "busy", "other"
_AT_ONCE: Final = 1_000


@click.command(help=__doc__)
@click.option("--activate", is_flag=True, help="Jobs are activations of ten steps; default: queries.")
@click.option("--backlog", default=100_000, show_default=True, help="Jobs of the busy client.")
@click.option("--count", default=100, show_default=True, help="Jobs of the other client, each time.")
@click.option("--open", "at_once", multiple=True, type=int, default=(1, 4), show_default=True, help="Open at a time.")
def main(activate: bool, backlog: int, count: int, at_once: tuple[int, ...]) -> None:
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(running_stack(state, 1))
        producer = stack.enter_context(Producer.connect(settings_of(state), client=OTHER))
        photos = iter(crops(2 * count * len(at_once) + 3, side=320))
        submit = producer.activate if activate else producer.query

        def one() -> Request:
            job = submit(next(photos))
            job.wait(600)
            return job.request

        like = [one(), one(), one()][-1]
        alone = {number: p95_ms(one, count, number) for number in at_once}
        began = time.perf_counter()
        submit_backlog(state, like, backlog)
        click.echo(f"{backlog:,} jobs of the busy client, submitted in {time.perf_counter() - began:.1f} s")
        for number in at_once:
            beside = p95_ms(one, count, number)
            click.echo(
                f"{number:2} open at a time: p95 {alone[number]:.0f} ms alone, {beside:.0f} ms beside the backlog, "
                f"{beside / alone[number]:.2f} times"
            )
        click.echo(f"{waiting_of(state, like):,} jobs of the busy client are left")


def p95_ms(one: Callable[[], object], count: int, at_once: int) -> float:
    """Of `count` jobs, from before the submission until the caller has the result."""

    def timed_ms(_: int) -> float:
        began = time.perf_counter()
        one()
        return 1000 * (time.perf_counter() - began)

    with ThreadPoolExecutor(at_once) as pool:
        return statistics.quantiles(pool.map(timed_ms, range(count)), n=20)[18]


def submit_backlog(state: Path, like: Request, count: int) -> None:
    """Write `count` jobs like one, of the busy client, into the ledger and its share queue."""
    settings = settings_of(state)
    requests = (like.model_copy(update={"nonce": f"{number:032x}"}) for number in range(count))
    with connect_redis(settings) as client:
        ledger = Ledger.connect(settings)
        while some := list(islice(requests, _AT_ONCE)):
            assert all(ledger.submit(some, client=BUSY))
            client.lpush(share_queue(like.queue, BUSY), *(_message(request) for request in some))


def _message(request: Request) -> str:
    headers = {"task": request.task, "id": request.job_id}
    return json.dumps({"headers": headers, "body": json.dumps([[], {"request": request.message()}, {}])})


def waiting_of(state: Path, like: Request) -> int:
    with connect_redis(settings_of(state)) as client:
        return int(client.llen(share_queue(like.queue, BUSY)))


if __name__ == "__main__":
    main()
