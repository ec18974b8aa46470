"""A Redis of a test's own, which it may kill and start again, on a port or a Unix socket."""

from __future__ import annotations

import shutil
import subprocess
import weakref
from pathlib import Path
from tempfile import mkdtemp

from deploy.local.redis_server import choose_server
from tests.ports import reserved_port

__all__ = ["OwnRedis"]


class OwnRedis:
    """Keeps everything it was told over a kill. Not running yet; give it `stop` at the end."""

    def __init__(self, folder: Path) -> None:
        self._sockets = mkdtemp(prefix="aii-", dir="/tmp")  # no more than 107 bytes fit into its address
        weakref.finalize(self, shutil.rmtree, self._sockets, ignore_errors=True)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._port = reserved_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.socket_url = f"unix://{self._sockets}/redis?db=1"

    def start(self) -> None:
        options = [
            "--bind", "127.0.0.1", "--port", str(self._port), "--unixsocket", f"{self._sockets}/redis",
            "--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
        ]  # fmt: skip
        server = choose_server(self._folder).path
        with (self._folder / "redis.log").open("a") as log:
            self._process = subprocess.Popen([server, *options], stdout=log, stderr=log)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
