"""Object storage, on a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.errors import DigestMismatch, InvalidKey, ObjectMissing, StorageUnavailable, TooLarge
from tasks.names import sha256_hex
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.moto_server import moto_server

DATA = b"some bytes"


def test_what_was_put_is_got(store: ObjectStore) -> None:
    store.put(Bucket.QUERIES, "folder/name.json", DATA, "application/json")
    assert store.get(Bucket.QUERIES, "folder/name.json", 100) == DATA
    assert "folder/name.json" in list(store.list_keys(Bucket.QUERIES, "folder/"))


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    assert not store.exists(Bucket.ORIGINALS, "0" * 64)
    with pytest.raises(ObjectMissing, match="0" * 64):
        store.get(Bucket.ORIGINALS, "0" * 64, 100)


def test_an_object_over_the_limit_is_refused(store: ObjectStore) -> None:
    store.put(Bucket.ORIGINALS, "large", DATA, "image/png")
    with pytest.raises(TooLarge, match="limit of 5 bytes"):
        store.get(Bucket.ORIGINALS, "large", 5)


def test_other_bytes_than_promised_are_refused(store: ObjectStore, tmp_path: Path) -> None:
    store.put(Bucket.ORIGINALS, "other", DATA, "image/png")
    with pytest.raises(DigestMismatch):
        store.get_verified(Bucket.ORIGINALS, "other", sha256_hex(b"promised"), 100)
    with pytest.raises(DigestMismatch):
        store.get_file(Bucket.ORIGINALS, "other", sha256_hex(b"promised"), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def answering(*bodies: bytes) -> Iterator[str]:
    """A server that answers each GET with the next of these bodies; yields its address."""
    left = iter(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = next(left)
            self.send_response(200)
            headers = {
                "Content-Length": str(len(body)),
                "ETag": '"1"',
                "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_bytes_that_were_changed_on_their_way_are_read_again(settings: Settings, tmp_path: Path) -> None:
    with answering(b"same bytes", DATA, b"", DATA) as address:
        store = ObjectStore.connect(settings.model_copy(update={"s3_endpoint": address}))
        assert store.get_verified(Bucket.ORIGINALS, "a", sha256_hex(DATA), 100) == DATA
        file = store.get_file(Bucket.ORIGINALS, "a", sha256_hex(DATA), tmp_path / "file")
        assert file.read_bytes() == DATA


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/../b", "", "nul\0", "ä", "a/", "x" * 600])
def test_a_key_outside_the_alphabet_is_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidKey):
        store.put(Bucket.ORIGINALS, key, DATA, "image/png")


def test_an_unreachable_store_is_named(settings: Settings) -> None:
    unreachable = settings.model_copy(update={"s3_endpoint": "127.0.0.1:1"})
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:1 does not answer.*aii up"):
        ObjectStore.connect(unreachable).check()


def test_wrong_keys_are_named_and_not_shown(settings: Settings) -> None:
    unauthorised = settings.model_copy(update={"s3_secret_key": SecretStr("not-the-secret")})
    with pytest.raises(StorageUnavailable, match="AII_S3_SECRET_KEY") as caught:
        ObjectStore.connect(unauthorised).check()
    assert "not-the-secret" not in str(caught.value)


def test_keys_of_other_programs_in_the_environment_are_not_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACCESS_KEY_ID": "x", "SESSION_TOKEN": "y", "SKIP_SIGNATURE": "true", "ENDPOINT": "z"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    store = ObjectStore.connect(settings)
    store.check()
    store.put(Bucket.QUERIES, "own-keys", DATA, "image/png")
    assert store.get(Bucket.QUERIES, "own-keys", 100) == DATA


def test_missing_buckets_are_created_once(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"bucket_results": "other-results", "bucket_queries": "other-queries"})
    store = ObjectStore.connect(elsewhere)
    with pytest.raises(StorageUnavailable, match=r"lacks a bucket.*aii up"):
        store.check()
    store.ensure_buckets()
    store.ensure_buckets()
    store.check()


def test_a_large_file_comes_back_as_it_was(store: ObjectStore, tmp_path: Path) -> None:
    """Larger than a part of an upload, and than what is read at once."""
    data = bytes(range(256)) * 50_000
    (tmp_path / "large").write_bytes(data)
    store.put_file(Bucket.COLLECTIONS, "large", tmp_path / "large")
    assert store.size(Bucket.COLLECTIONS, "large") == len(data)
    assert store.get_file(Bucket.COLLECTIONS, "large", sha256_hex(data), tmp_path / "again").read_bytes() == data


@pytest.fixture(params=["the session's server", "moto"])
def ranged(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[ObjectStore]:
    """A server whose answer to a range the client refuses, and one that answers as S3 does."""
    if request.param != "moto":
        yield ObjectStore.connect(settings)
        return
    with moto_server(tmp_path) as address:
        store = ObjectStore.connect(settings.model_copy(update={"s3_endpoint": address}))
        store.ensure_buckets()
        yield store


def test_of_a_range_just_its_bytes_are_read(ranged: ObjectStore) -> None:
    data = bytes(range(251)) * 20_000
    ranged.put(Bucket.COLLECTIONS, "ranged", data, "application/octet-stream")
    last = len(data) - 1
    for start, end in ((0, 1), (0, last + 1), (17, 1_000), (3_000_000, 3_000_001), (1_000_000, last), (last, last + 1)):
        assert b"".join(ranged.stream_range(Bucket.COLLECTIONS, "ranged", start, end)) == data[start:end]
    with pytest.raises(ObjectMissing, match="nowhere"):
        list(ranged.stream_range(Bucket.COLLECTIONS, "nowhere", 0, 1))
