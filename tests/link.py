"""A TCP proxy before a service, which can be told to freeze, cut, refuse or hold back what passes through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final

__all__ = ["Held", "Link"]

_CHUNK: Final = 1 << 16
_ANSWER: Final = (
    "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}"
)
_ERROR: Final = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
# What becomes of a chunk on its way to the service: True lets it pass, False has ended the connection.
_Gate = Callable[["_Pair", bytes], bool]


class _Pair:
    """One connection of a client, and the one to the service that continues it."""

    def __init__(self, client: socket.socket, service: socket.socket) -> None:
        self.client = client
        self.service = service
        self.half_open = False
        self.tail = b""  # of what the client sent last

    def cut(self) -> None:
        for end in (self.client, self.service):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass(frozen=True)
class Held:
    """Whether a client was held back, and whether it may go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Link:
    """Passes bytes on to `target` (``host:port``) until it is told otherwise. Its methods may be called from any
    thread."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flows = threading.Event()
        self._flows.set()
        self._accepts = True
        self._gate: _Gate | None = None
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()
        self._flows.set()
        self.cut()

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()

    def forget(self) -> None:
        """Leave all connections half open, as a router that has lost its table: they carry nothing any more and do
        not end, and new ones are taken."""
        with self._lock:
            for pair in self._pairs:
                pair.half_open = True

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing passes; connections stay open, and new ones seem to be taken."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @contextmanager
    def down(self) -> Iterator[None]:
        """All connections end, and new ones end at once."""
        self._accepts = False
        self.cut()
        try:
            yield
        finally:
            self._accepts = True

    @contextmanager
    def cutting_every(self, nth: int) -> Iterator[None]:
        """Every nth PUT ends in the middle of its first packet."""
        numbers = count(1)

        def gate(pair: _Pair, data: bytes) -> bool:
            if not data.startswith(b"PUT ") or next(numbers) % nth:
                return True
            pair.service.sendall(data[: len(data) // 2])
            pair.cut()
            return False

        with self._gated(gate):
            yield

    @contextmanager
    def refusing(self, answers: Mapping[str, tuple[str, str]]) -> Iterator[None]:
        """HTTP requests are answered here: `answers` has a status and a code of S3 for parts of the request's line."""

        def gate(pair: _Pair, data: bytes) -> bool:
            line = data.partition(b"\r\n")[0].decode("latin-1")
            status, code = next((answer for part, answer in answers.items() if part in line), ("", ""))
            if not status or not line.endswith("HTTP/1.1"):
                return True
            body = _ERROR.format(code=code)
            pair.client.sendall(_ANSWER.format(status=status, size=len(body), body=body).encode())
            pair.client.shutdown(socket.SHUT_WR)
            while pair.client.recv(_CHUNK):  # unread bytes would reset the connection before the answer is read
                pass
            pair.cut()
            return False

        with self._gated(gate):
            yield

    @contextmanager
    def holding(self, mark: bytes, on_mark: Callable[[], None]) -> Iterator[Held]:
        """A client that sends `mark` is held back: those bytes, and what it sends after them, wait until released or
        the end. `on_mark` is called the first time, so that a process can be stopped exactly before an effect."""
        held = Held()

        def gate(pair: _Pair, data: bytes) -> bool:
            seen, pair.tail = pair.tail + data, data[-len(mark) :]
            if mark in seen and not held.released.is_set():
                if not held.reached.is_set():
                    held.reached.set()
                    on_mark()
                held.released.wait()
            return True

        with self._gated(gate):
            try:
                yield held
            finally:
                held.released.set()

    @contextmanager
    def _gated(self, gate: _Gate) -> Iterator[None]:
        self._gate = gate
        try:
            yield
        finally:
            self._gate = None

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        if not self._accepts:
            client.close()
            return
        try:
            pair = _Pair(client, socket.create_connection(self._target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._pairs.add(pair)
        for source, sink in ((pair.client, pair.service), (pair.service, pair.client)):
            threading.Thread(target=self._pump, args=(pair, source, sink), daemon=True).start()

    def _pump(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._flows.wait()
                if pair.half_open:
                    return
                gate = self._gate if source is pair.client else None
                if gate is None or gate(pair, data):
                    sink.sendall(data)
        if not pair.half_open:
            pair.cut()
            with self._lock:
                self._pairs.discard(pair)
