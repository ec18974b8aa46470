"""Odd messages by the thousand: ``python -m tests.benchmarks.messages [--count 10000]``.

A worker reads so many elements that are no messages, or wrong ones, from all three queues; then good jobs are sent. It
says how many were set aside, how many ended with a document, whether the worker lived, and how soon the next good job
was done.
"""

from __future__ import annotations

import time

import click

from tasks.ledger.states import JobState
from tasks.names import QUEUES
from tests.odd_messages import some_odd_elements
from tests.photographs import crops
from tests.stack import running_service
from tests.waiting import wait_for


@click.command(help=__doc__)
@click.option("--count", default=10_000, show_default=True, help="Elements in all queues together.")
def main(count: int) -> None:
    with running_service() as service:
        client, producer, worker = service.client, service.producer, service.worker
        began = time.monotonic()
        for queue in QUEUES:
            for element in some_odd_elements(queue, count // len(QUEUES)):
                client.lpush(queue, element)
        wait_for(lambda: not any(client.llen(queue) for queue in QUEUES) or not worker.alive(), "it does not get on")
        click.echo(f"{count:,} elements: {time.monotonic() - began:.0f} s, the worker lives: {worker.alive()}")
        counts = client.hgetall("aii:counts")
        click.echo(f"set aside {counts.get('dead', 0)}, ended with a document {counts.get('failed', 0)}")
        before = time.monotonic()
        jobs = [producer.activate(image) for image in crops(20)] + [producer.query(crops(1)[0])]
        ids = [job.job_id for job in jobs]
        wait_for(lambda: JobState.DONE in producer.ledger.states(ids), "no good job is done")
        click.echo(f"the first good job was done after {time.monotonic() - before:.2f} s")
        wait_for(lambda: set(producer.ledger.states(ids)) == {JobState.DONE}, "a slot was lost")
        click.echo(f"{len(ids)} good jobs are done, {client.zcard('aii:leases')} leases are left")


if __name__ == "__main__":
    main()
