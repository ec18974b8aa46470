"""A worker's own port, for orchestrators and Prometheus: ``/live``, ``/ready``, ``/metrics``.

Live says that the process answers: one that does not is to be restarted. Ready says that it can do jobs now: its
extractor is warm, a collection is mapped, Redis and S3 answer. A worker that is not ready waits; restarting it does not
help.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tasks.errors import AiiError
from tasks.metrics import Counters
from workers.exposition import CountersCollector

__all__ = ["HealthServer", "Problem"]

# Raises an AiiError that says what is missing.
Problem = Callable[[], object]


class HealthServer:
    """Answers in threads of its own, so that busy handlers do not make a worker look dead.

    Args:
        port: where to listen; 0 takes a free one, see :attr:`port`.
        checks: what being ready consists of, by name.
        counters: the figures of this process.
    """

    def __init__(
        self, address: str, port: int, checks: Mapping[str, Problem], counters: Callable[[], Counters]
    ) -> None:
        registry = CollectorRegistry()
        registry.register(CountersCollector(counters))
        self._server = ThreadingHTTPServer((address, port), _handler(checks, registry))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(checks: Mapping[str, Problem], registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/live":
                self._answer(200, b'{"live": true}', "application/json")
            elif self.path == "/ready":
                missing = _missing(checks)
                body = json.dumps({"ready": not missing, "missing": missing}).encode()
                self._answer(503 if missing else 200, body, "application/json")
            elif self.path == "/metrics":
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            else:
                self._answer(404, b'{"paths": ["/live", "/ready", "/metrics"]}', "application/json")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Probes come every few seconds: they are not worth a line each."""

    return Handler


def _missing(checks: Mapping[str, Problem]) -> dict[str, str]:
    """By name, why a check failed."""
    found = {}
    for name, check in checks.items():
        try:
            check()
        except AiiError as error:
            found[name] = error.message
    return found
