"""TLS before a server that does not speak it, with a certificate of its own; it may ask clients for theirs.

``python -m tests.tls_front TARGET CERTIFICATE CLIENTS`` serves, prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import trustme

__all__ = ["TlsFront"]


class TlsFront:
    """Listens on 127.0.0.1 and passes bytes on to `target` (``host:port``), in a process of its own. Give it `close`
    at the end.

    Args:
        folder: for its files.
        authority: that signs the server's certificate, for the name `localhost` only.
        clients: whose certificates clients have to show; None: they need none.
    """

    def __init__(self, target: str, folder: Path, authority: trustme.CA, clients: trustme.CA | None = None) -> None:
        certificate, trusted = folder / "front.pem", folder / "front-clients.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        if clients:
            clients.cert_pem.write_to_path(str(trusted))
        command = [sys.executable, "-m", "tests.tls_front", target, str(certificate), str(trusted if clients else "")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


async def _serve(target: str, certificate: str, clients: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    host, _, port = target.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service_reader, service_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pass_on(reader, service_writer), _pass_on(service_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
