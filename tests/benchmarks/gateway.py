"""The HTTP gateway against the Python producer: ``python -m tests.benchmarks.gateway [--json FILE]``.

The same photographs, each with bytes that S3 does not have yet, protected by the same workers: submitted and awaited by
a Python producer, and by an HTTP client through a gateway, which keeps some requests open that each wait for their
result; in turns, since a shared machine is now faster and now slower. Then what a query takes, one at a time with idle
workers, asked by the one and by the other in turns too.

One machine runs client, gateway and workers, so the client is a light one, of the standard library.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from threading import local
from typing import Any
from urllib.parse import urlsplit

import click

from producer import Producer
from tests.gateway import new_token, running_gateway
from tests.photographs import crops
from tests.stack import running_stack, settings_of

_AT_ONCE = 32  # requests: more than the workers have in hand
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
        client = Client(address, new_token(environment, "--scope", "admin"))
        figures = rates(producer, client, files, rounds) | latencies(producer, client, files, queries)
    for name, value in figures.items():
        click.echo(f"{name:<32}{value:.3f}")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


def rates(producer: Producer, client: Client, files: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Images per second, from the first submission to the last result document."""
    runs: dict[str, Callable[[Sequence[bytes]], None]] = {
        "producer": lambda some: _by_producer(producer, some),
        "gateway": lambda some: _by_gateway(client, some),
    }
    for run in runs.values():  # kernels are made for each shape
        run([_new(data) for data in files])
    spent = dict.fromkeys(runs, 0.0)
    for number in range(rounds):
        for name in sorted(runs, reverse=bool(number % 2)):
            some = [_new(data) for data in files]
            spent[name] += _seconds(lambda name=name, some=some: runs[name](some))  # type: ignore[misc]
    figures = {f"{name}_images_per_s": rounds * len(files) / seconds for name, seconds in spent.items()}
    return figures | {"images_ratio": spent["producer"] / spent["gateway"]}


def _by_producer(producer: Producer, files: Sequence[bytes]) -> None:
    jobs = [producer.activate(data) for data in files]
    assert len(list(producer.wait_all(jobs, _LIMIT_S))) == len(files)


def _by_gateway(client: Client, files: Sequence[bytes]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = list(pool.map(client.protected, files))
    assert all(result["result"] for result in results)


def _new(data: bytes) -> bytes:
    """The same image in other bytes: what follows its end is not read."""
    return data + os.urandom(16)


class Client:
    """HTTP with one connection for each thread."""

    def __init__(self, address: str, token: str) -> None:
        self._host = urlsplit(address).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
        self._local = local()

    def protected(self, data: bytes) -> dict[str, Any]:
        document = self._asked("POST", "/v1/activations", data, Prefer="wait=30")
        while document["state"] in ("queued", "running"):
            document = self._asked("GET", f"/v1/jobs/{document['job_id']}", None, Prefer="wait=30")
        return document

    def answered(self, data: bytes) -> dict[str, Any]:
        return self._asked("POST", "/v1/queries", data, Prefer="wait=30")

    def _asked(self, method: str, path: str, data: bytes | None, **headers: str) -> dict[str, Any]:
        if not hasattr(self._local, "connection"):
            self._local.connection = HTTPConnection(self._host, timeout=_LIMIT_S)
            self._local.connection.connect()
            self._local.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._local.connection.request(method, path, data, self._headers | headers)
        answer = self._local.connection.getresponse()
        document: dict[str, Any] = json.loads(answer.read())
        assert answer.status < 300, document
        return document


def latencies(producer: Producer, client: Client, files: Sequence[bytes], count: int) -> dict[str, float]:
    """Milliseconds from submission to answer, one query at a time."""
    asks: dict[str, Callable[[bytes], object]] = {
        "producer": lambda data: producer.query(data).wait(_LIMIT_S),
        "gateway": client.answered,
    }
    times: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(count):
        for name in sorted(asks, reverse=bool(number % 2)):
            data = _new(files[number % len(files)])
            times[name].append(1_000 * _seconds(lambda ask=asks[name], data=data: ask(data)))  # type: ignore[misc]
    figures = {}
    for name, values in times.items():
        quantiles = statistics.quantiles(values, n=20)
        figures |= {f"{name}_query_p50_ms": quantiles[9], f"{name}_query_p95_ms": quantiles[18]}
    return figures | {"query_p95_more_ms": figures["gateway_query_p95_ms"] - figures["producer_query_p95_ms"]}


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
