"""Listing of result documents: ``python -m tests.benchmarks.listing [--count 1000000]``.

The documents are made up by a server of its own process, which answers as S3 does, a thousand at a time, and knows no
more than their number: a store that is real takes a file for each. None is to be read, as where segments hold them all.
`list_us` is what a document takes of a core in this process, `listed_per_s` how many a second are listed with the
server on the same machine, and `more_mb` how much more memory it takes at its peak.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Final
from urllib.parse import parse_qs, urlsplit

import click
from pydantic import SecretStr

from tasks.settings import load_settings
from tasks.storage import ObjectStore
from tests.benchmarks.scale import memory_taken
from tests.forked import forkserver
from workers.index.maintenance.document_list import listed

_PAGE: Final = 1_000
_ITEM: Final = (
    "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>2000</Size>"
    "<ETag>&#34;d41d8cd98f00b204e9800998ecf8427e&#34;</ETag><StorageClass>STANDARD</StorageClass></Contents>"
)
_LATER_MS: Final = 10**13


@click.command(help=__doc__)
@click.option("--count", default=1_000_000, show_default=True)
def main(count: int) -> None:
    with made_up(count) as address:
        keys = {"s3_access_key": SecretStr("none"), "s3_secret_key": SecretStr("none")}
        store = ObjectStore.connect(load_settings().model_copy(update={"s3_endpoint": address, **keys}))
        for in_shares in (True, False):
            measure(store, count, in_shares=in_shares)


def measure(store: ObjectStore, count: int, *, in_shares: bool) -> None:
    began, cpu_before = time.perf_counter(), time.process_time()
    with memory_taken() as taken_mb:
        assert sum(some.passed_over for some in listed(store, _LATER_MS, in_shares=in_shares)) == count
    list_us = 1e6 * (time.process_time() - cpu_before) / count
    click.echo(
        f"documents={count}  in_shares={in_shares}  list_us={list_us:.1f}  "
        f"listed_per_s={count / (time.perf_counter() - began):.0f}  more_mb={max(taken_mb):.1f}"
    )


@contextmanager
def made_up(count: int) -> Iterator[str]:
    """Yields the address of a server that has so many documents."""
    ours, theirs = forkserver().Pipe()
    process = forkserver().Process(target=serve, args=(count, theirs))
    process.start()
    try:
        yield f"127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def serve(count: int, ready: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Lists,), {"count": count}))
    server.daemon_threads = True
    ready.send(server.server_port)
    server.serve_forever()


class _Lists(BaseHTTPRequestHandler):
    """Answers ListObjectsV2."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        first = self._after(asked.get("continuation-token") or asked.get("start-after", ""))
        last = min(self.count, first + _PAGE)
        more = f"<NextContinuationToken>{self._key(last - 1)}</NextContinuationToken>" if last < self.count else ""
        items = "".join(_ITEM.format(self._key(i)) for i in range(first, last))
        answer = (
            f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{items}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _key(self, number: int) -> str:
        return f"{number * ((1 << 128) // self.count):032x}.json"

    def _after(self, key: str) -> int:
        """The number of the first document whose key comes after another one."""
        number = int(key.partition(".")[0].ljust(32, "0") or "0", 16) // ((1 << 128) // self.count)
        while key and number < self.count and self._key(number) <= key:
            number += 1
        return number


if __name__ == "__main__":
    main()
