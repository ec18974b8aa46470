"""A TCP proxy that holds back a request, so that a process can be stopped exactly before it has an effect."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["Proxy", "proxied"]

_CHUNK: Final = 1 << 16


class Proxy:
    """Passes everything on between clients and a server at `address`, until a client sends `mark`: then `on_mark` is
    called, and those bytes, with all that the client sends after them, wait for :meth:`release`."""

    def __init__(self, address: str, mark: bytes, on_mark: Callable[[], None]) -> None:
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._mark = mark
        self._on_mark = on_mark
        self._released = threading.Event()
        self.held = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        """Pass on what was held back; nothing is held back from now on."""
        self._released.set()

    def close(self) -> None:
        self.release()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for source, sink, watched in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, sink, watched), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, watched: bool) -> None:
        tail = b""
        with suppress(OSError), source, sink:
            while data := source.recv(_CHUNK):
                if watched and not self._released.is_set() and self._mark in tail + data:
                    if not self.held.is_set():
                        self.held.set()
                        self._on_mark()
                    self._released.wait()
                tail = data[-len(self._mark) :]
                sink.sendall(data)


@contextmanager
def proxied(address: str, mark: bytes, on_mark: Callable[[], None]) -> Iterator[Proxy]:
    proxy = Proxy(address, mark, on_mark)
    try:
        yield proxy
    finally:
        proxy.close()
