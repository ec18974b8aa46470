"""A real gateway: ``aii serve`` in a process of its own, and a client that speaks HTTP to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import httpx2 as httpx

from tests.ports import reserved_port
from tests.stack import AII, aii
from tests.waiting import LIMIT_S, wait_for

__all__ = ["client_of", "dripping_server", "new_token", "running_gateway"]


@contextmanager
def running_gateway(environment: dict[str, str], log: Path, **more: str) -> Iterator[str]:
    """Run a gateway until the block ends; yields its address."""
    address = f"http://127.0.0.1:{(port := reserved_port())}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*AII, "serve"], env=environment | more | {"AII_GATEWAY_PORT": str(port)}, stdout=output, stderr=output
        )
        try:
            wait_for(lambda: _answers(address) or process.poll() is not None, "the gateway does not answer")
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT_S)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@contextmanager
def dripping_server() -> Iterator[str]:
    """A server that begins an answer, and sends a byte of its head now and then, for ever; yields its address."""
    end = Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not end.wait(0.05):
                connection.sendall(b"x")

    def accept() -> None:
        with suppress(OSError):
            while True:
                Thread(target=drip, args=[server.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            end.set()


def new_token(environment: dict[str, str], *options: str) -> str:
    """A token, made as an operator makes it."""
    made = aii(environment, "tokens", "add", f"test-{os.urandom(4).hex()}", *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def client_of(address: str, token: str) -> httpx.Client:
    """A client without a proxy."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=LIMIT_S)
