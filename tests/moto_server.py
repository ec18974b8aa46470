"""moto's S3 server in a process of its own: it checks signatures and evaluates policies."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import reserved_port
from tests.waiting import LIMIT_S, wait_for

__all__ = ["check_all", "moto_server"]


@contextmanager
def moto_server(folder: Path, unchecked: int | None = None) -> Iterator[str]:
    """Yields its address, ``host:port``.

    Args:
        folder: for its log.
        unchecked: how many requests are let in before signatures and policies count; None: all.
    """
    port = reserved_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = dict(os.environ) | ({} if unchecked is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(unchecked)})
    with (folder / "moto.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(port), "the S3 server does not answer")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def check_all(address: str) -> None:
    """From now on signatures and policies count."""
    asked = urllib.request.Request(f"http://{address}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    urllib.request.urlopen(asked, timeout=LIMIT_S).close()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=LIMIT_S).close()
    except OSError:
        return False
    return True
