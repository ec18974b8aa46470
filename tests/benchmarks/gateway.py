"""The HTTP gateway against the Python producer: ``python -m tests.benchmarks.gateway [--json FILE]``.

The same photographs, protected by the same workers: submitted and awaited by a Python producer, and by an HTTP client
through a gateway, in turns, since a shared machine is now faster and now slower. Then what a query takes, one at a time
with idle workers, asked by the one and by the other in turns too.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import httpx2 as httpx

from producer import Producer
from tests.gateway import client_of, new_token, running_gateway
from tests.photographs import crops
from tests.stack import running_stack, settings_of

_THREADS = 8
_IMAGE = {"Content-Type": "image/jpeg"}
_LIMIT_S = 600


@click.command(help=__doc__)
@click.option("--count", default=100, show_default=True, help="Photographs a round.")
@click.option("--rounds", default=4, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Default: as many as `aii up` starts.")
@click.option("--queries", default=200, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(count: int, rounds: int, workers: int | None, queries: int, json_path: Path | None) -> None:
    files = crops(count, side=256)
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = stack.enter_context(running_stack(state, workers))
        producer = stack.enter_context(Producer.connect(settings_of(state)))
        address = stack.enter_context(running_gateway(environment, state / "gateway.log"))
        client = stack.enter_context(client_of(address, new_token(environment, "--scope", "admin")))
        figures = rates(producer, client, files, rounds) | latencies(producer, client, files, queries)
    for name, value in figures.items():
        click.echo(f"{name:<32}{value:.3f}")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


def rates(producer: Producer, client: httpx.Client, files: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Images per second, from the first submission to the last result document."""
    runs: dict[str, Callable[[], None]] = {
        "producer": lambda: _by_producer(producer, files),
        "gateway": lambda: _by_gateway(client, files),
    }
    for run in runs.values():  # kernels are made for each shape
        run()
    spent = dict.fromkeys(runs, 0.0)
    for number in range(rounds):
        for name in sorted(runs, reverse=bool(number % 2)):
            spent[name] += _seconds(runs[name])
    figures = {f"{name}_images_per_s": rounds * len(files) / seconds for name, seconds in spent.items()}
    return figures | {"images_ratio": spent["producer"] / spent["gateway"]}


def _by_producer(producer: Producer, files: Sequence[bytes]) -> None:
    jobs = [producer.activate(data, again=True) for data in files]
    assert len(list(producer.wait_all(jobs, _LIMIT_S))) == len(files)


def _by_gateway(client: httpx.Client, files: Sequence[bytes]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = list(pool.map(lambda data: _submitted(client, data), files))
        results = list(pool.map(lambda job: _ended(client, job), jobs))
    assert all(result["result"] for result in results)


def _submitted(client: httpx.Client, data: bytes) -> str:
    answer = client.post("/v1/activations?again=true", content=data, headers=_IMAGE)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return answer.headers["Location"]


def _ended(client: httpx.Client, job: str) -> dict[str, Any]:
    while True:
        document: dict[str, Any] = client.get(job, headers={"Prefer": "wait=30"}).json()
        if document["state"] not in ("queued", "running"):
            return document


def latencies(producer: Producer, client: httpx.Client, files: Sequence[bytes], count: int) -> dict[str, float]:
    """Milliseconds from submission to answer, one query at a time."""
    asks: dict[str, Callable[[bytes], object]] = {
        "producer": lambda data: producer.query(data).wait(_LIMIT_S),
        "gateway": lambda data: _asked(client, data),
    }
    times: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(count):
        data = files[number % len(files)]
        for name in sorted(asks, reverse=bool(number % 2)):
            times[name].append(1_000 * _seconds(lambda ask=asks[name], data=data: ask(data)))  # type: ignore[misc]
    figures = {}
    for name, values in times.items():
        quantiles = statistics.quantiles(values, n=20)
        figures |= {f"{name}_query_p50_ms": quantiles[9], f"{name}_query_p95_ms": quantiles[18]}
    return figures | {"query_p95_more_ms": figures["gateway_query_p95_ms"] - figures["producer_query_p95_ms"]}


def _asked(client: httpx.Client, data: bytes) -> None:
    answer = client.post("/v1/queries", content=data, headers=_IMAGE | {"Prefer": "wait=30"})
    assert answer.status_code == httpx.codes.OK, answer.text


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
