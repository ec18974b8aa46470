"""A proxy before the real S3 server that refuses some objects, or is away for a while."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["S3Proxy"]

_REASONS = {403: "AccessDenied", 404: "NoSuchBucket", 400: "InvalidRequest"}


class S3Proxy:
    """Passes requests on to `server` (``host:port``).

    Attributes:
        refused: what is answered instead, by a part of the path.
        away: whether connections are closed without an answer.
    """

    def __init__(self, server: str) -> None:
        self.refused: dict[str, int] = {}
        self.away = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = next((code for part, code in owner.refused.items() if part in self.path), None)
                if owner.away:
                    self.close_connection = True
                elif status:
                    text = f"<Error><Code>{_REASONS[status]}</Code></Error>".encode()
                    self._answer(status, {"Content-Type": "application/xml"}, text)
                else:
                    upstream = http.client.HTTPConnection(server, timeout=60)
                    upstream.request(self.command, self.path, body, dict(self.headers))
                    answer = upstream.getresponse()
                    self._answer(answer.status, dict(answer.headers), answer.read())
                    upstream.close()

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815  # names of the base class

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[S3Proxy]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
