"""A real Flower, in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

from tests.ports import reserved_port
from tests.waiting import LIMIT_S, wait_for

__all__ = ["Flower"]

_PASSWORD = "open sesame"


class Flower:
    """Started with the environment of a running stack; `options` are Flower's own."""

    def __init__(self, environment: dict[str, str], log: Path, **options: str) -> None:
        self.port = reserved_port()
        self.authorization = "Basic " + base64.b64encode(f"operator:{_PASSWORD}".encode()).decode()
        own = {"AII_FLOWER_PORT": str(self.port), "AII_FLOWER_PASSWORD": _PASSWORD}
        own |= {f"FLOWER_{name.upper()}": value for name, value in options.items()}
        self._log = log.open("a")
        command = [sys.executable, "-m", "deploy.flower"]
        self._process = subprocess.Popen(command, env=environment | own, stdout=self._log, stderr=self._log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> Flower:
        """Wait until it has read Redis for the first time."""
        wait_for(lambda: self._answers("/activations/overview.json"), "Flower did not start")
        return self

    def get(self, path: str, *, login: bool = True, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        status, body, _ = self.ask(path, login=login, method=method, **headers)
        return status, body

    def ask(
        self, path: str, *, login: bool = True, method: str = "GET", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers (by their names in lower case) of the answer."""
        if login:
            headers["Authorization"] = self.authorization
        request = urllib.request.Request(self.url + path, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
                return answer.status, answer.read(), _named(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), _named(error.headers)

    def overview(self) -> dict[str, Any]:
        return json.loads(self.get("/activations/overview.json")[1])  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(LIMIT_S)
        self._log.close()

    def _answers(self, path: str) -> bool:
        try:
            return self.get(path)[0] == 200
        except OSError:
            return False


def _named(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
