"""A worker's own port, for orchestrators and Prometheus: ``/live``, ``/ready``, ``/metrics``.

Live says that the process answers and gets on: no thread of it has died, or is stuck for ever. One that is not live is
to be restarted. Ready says that it can do jobs now: its
extractor is warm, a collection is mapped, Redis and S3 answer. A worker that is not ready waits; restarting it does not
help. The port is open from the start on, when loading and warming an extractor may take minutes.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tasks.errors import AiiError, InvalidRequest
from tasks.monitoring.metrics import Counters
from tasks.monitoring.prometheus import CountersCollector

__all__ = ["Check", "HealthServer", "Readiness", "failed_checks"]

logger = logging.getLogger(__name__)

# Raises an error that says what is missing.
Check = Callable[[], object]


class Readiness:
    """What being ready consists of, and what is missing: until there are checks, what the start is at. Thread-safe."""

    def __init__(self) -> None:
        self._checks: Mapping[str, Check] = {}
        self._starting: str | None = "The worker starts."
        self.notes: dict[str, str] = {}  # by name, what is worth knowing and keeps nothing from being ready

    def starting(self, what: str) -> None:
        """Say what the start is at."""
        self._starting = what

    def started(self, checks: Mapping[str, Check]) -> None:
        """From now on, checks by name decide."""
        self._checks, self._starting = checks, None

    def missing(self) -> dict[str, str]:
        """By name, why the worker is not ready; empty when it is."""
        if self._starting:
            return {"start": self._starting}
        return failed_checks(self._checks)


class HealthServer:
    """Answers in threads of its own, so that busy handlers do not make a worker look dead.

    Args:
        port: where to listen; 0 takes a free one, see :attr:`port`.
        liveness: by name, why the process is to be restarted; empty when it gets on.
        counters: the figures of this process.
        silent_s: after which a connection that says nothing is closed, so that it keeps no thread.

    Raises:
        InvalidRequest: the address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        port: int,
        readiness: Readiness,
        counters: Callable[[], Counters],
        liveness: Callable[[], Mapping[str, str]] = dict,
        silent_s: float = 10.0,
    ) -> None:
        registry = CollectorRegistry()
        registry.register(CountersCollector(counters))
        try:
            self._server = ThreadingHTTPServer((address, port), _handler(readiness, registry, liveness, silent_s))
        except OSError as error:
            text = f"Nothing can listen on {address}:{port} ({error.strerror}): set AII_METRICS_PORT to another one."
            raise InvalidRequest(text) from error
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


def _handler(
    readiness: Readiness, registry: CollectorRegistry, liveness: Callable[[], Mapping[str, str]], silent_s: float
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = silent_s  # of its socket

        def do_GET(self) -> None:
            if self.path == "/live":
                stuck = liveness()
                body = json.dumps({"live": not stuck, "stuck": dict(stuck)}).encode()
                self._answer(503 if stuck else 200, body, "application/json")
            elif self.path == "/ready":
                missing = readiness.missing()
                body = json.dumps({"ready": not missing, "missing": missing} | readiness.notes).encode()
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


def failed_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """By name, why checks failed."""
    return {name: reason for name, check in checks.items() if (reason := _reason(check))}


def _reason(check: Check) -> str | None:
    """Why a check failed."""
    try:
        check()
    except AiiError as error:
        return error.message
    except Exception as error:
        logger.exception("A check of this worker's readiness failed with an unforeseen error")
        return f"{type(error).__name__}; the worker's log has the rest."
    return None
