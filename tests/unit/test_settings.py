"""Settings as people write them: understood, or refused with the variable and the remedy and without the value."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.connection import broker_url, redis_address
from tasks.errors import AiiError, InvalidSetting, StorageUnavailable
from tasks.network import is_loopback, proxy_of
from tasks.redis_address import parsed_redis_url
from tasks.s3_address import parsed_s3_endpoint
from tasks.settings import Settings, load_settings
from tasks.state_folder import state_dir
from tasks.storage import Bucket, ObjectStore


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AII_STATE_DIR", str(tmp_path))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize(
    ("written", "endpoint", "secure"),
    [
        ("s3.example.org:9000", "s3.example.org:9000", False), ("  127.0.0.1:9000\n", "127.0.0.1:9000", False),
        ("https://s3.example.org", "s3.example.org", True), ("HTTPS://s3.example.org:443/", "s3.example.org:443", True),
        ("http://[::1]:9000", "[::1]:9000", False), ("minio", "minio", False),
    ],
)  # fmt: skip
def test_an_endpoint_of_s3_may_begin_with_a_scheme(
    written: str, endpoint: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = settings(monkeypatch, AII_S3_ENDPOINT=written, AII_S3_SECURE="false")
    assert (read.s3_endpoint, read.s3_secure) == (endpoint, secure)


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("http://secret:9000/bucket", "path"), ("secret:9000/bucket", "path"),
        ("http://key:secret@host", "AII_S3_ACCESS_KEY"),
        ("ftp://secret", "scheme"), ("secret host", "address"), ("secret:port", "address"), ("secret:99999", "address"),
        ("", "empty"), ("  ", "empty"), ("https://", "address"), ("http://secret?x=1", "path"),
    ],
)  # fmt: skip
def test_an_endpoint_of_s3_that_is_none_is_refused_with_the_remedy(
    written: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidSetting, match="AII_S3_ENDPOINT") as caught:
        settings(monkeypatch, AII_S3_ENDPOINT=written)
    assert remedy in caught.value.message
    assert "secret" not in caught.value.message


def test_an_endpoint_and_a_setting_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match="AII_S3_SECURE"):
        settings(monkeypatch, AII_S3_ENDPOINT="http://host", AII_S3_SECURE="true")


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("redis://:se#cret@host:6379/0", "%23"), ("redis://:se/cret@host:6379/0", "%2F"),
        ("redis://:se@cret@host", "%40"), ("redis://:se%cret@host", "%25"), ("redis://:secret#@host", "%23"),
        ("redis://:se#cret", "%23"), ("127.0.0.1:6379", "lacks a scheme"), (":secret@host:6379", "lacks a scheme"),
        ("http://host", "none of redis://"), ("redis://:secret@", "names no host"),
        ("redis://:secret@h:port/0", "port"),
        ("redis://:secret@h:0", "port"), ("redis://:secret@h:70000", "port"), ("redis://:se cret@host", "%20"),
        ("redis://:secret@host/abc", "database"), ("redis://:secret@host/0/1", "database"), ("", "empty"),
        (" \t", "empty"), ("unix://", "socket"), ("unix:///", "socket"), ("unix://:secret@/a?db=x", "socket"),
        ("redis://:secret@h1,h2", "sentinel://"), ("sentinel://:secret@h1,h2", "name of a primary"),
        ("sentinel://:secret@h1,h2/a/b", "name of a primary"), ("sentinel://:secret@h1,/a", "names no host"),
        ("redis://:secret@h?ssl_ca_certs=/secret", "redis://"), ("rediss://:secret@h?ca=/secret", "ssl_ca_certs"),
        ("rediss://:secret@h?ssl_ca_certs=/secret", "not there"),
        ("rediss://:secret@h?ssl_cert_reqs=secret", "required"),
        ("rediss://:secret@h?ssl_check_hostname=secret", "true"), ("sentinel://:secret@h/a?ssl_keyfile=s", "sentinel_"),
    ],
)  # fmt: skip
def test_an_address_of_redis_that_is_none_is_refused_with_the_remedy(
    written: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidSetting, match="AII_REDIS_URL") as caught:
        settings(monkeypatch, AII_REDIS_URL=written)
    assert remedy in caught.value.message
    assert "cret" not in caught.value.message


@pytest.mark.parametrize(
    ("written", "address", "broker"),
    [
        (" redis://:a%23b@host:7000/3 ", "host:7000", "redis://:a%23b@host:7000/3"),
        ("REDISS://host", "host:6379", "rediss://host:6379/0"),
        ("unix://:pw@/run/redis.sock?db=2", "/run/redis.sock", "redis+socket://:pw@/run/redis.sock?virtual_host=2"),
        ("redis://[::1]:6380/", "::1:6380", "redis://[::1]:6380/0"),
        (
            "sentinel://aii:a%40b@h1,h2:1/pri/2?sentinel_password=x",
            "pri (sentinels h1:26379, h2:1)",
            "sentinel://aii:a%40b@h1:26379/2;sentinel://aii:a%40b@h2:1/2",
        ),
    ],
)
def test_an_address_of_redis_is_trimmed_and_may_be_a_socket_or_sentinels(
    written: str, address: str, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = settings(monkeypatch, AII_REDIS_URL=written)
    assert (redis_address(read), broker_url(read)) == (address, broker)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AII_LEASE_S", "secret"), ("AII_LEASE_S", ""), ("AII_MAX_ATTEMPTS", "1.5"), ("AII_S3_SECURE", "secret"),
        ("AII_FLOWER_PORT", "99999"), ("AII_BUCKET_RESULTS", " "), ("AII_S3_REGION", ""),
        ("AII_DEFAULT_COLLECTION", ""),
    ],
)  # fmt: skip
def test_any_other_setting_is_refused_by_its_name(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match=variable) as caught:
        settings(monkeypatch, **{variable: value})
    assert "secret" not in caught.value.message
    assert "unset it" in caught.value.message


def test_values_are_trimmed_and_an_empty_secret_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings(monkeypatch, AII_LEASE_S=" 30 ", AII_S3_SECRET_KEY="\tkey\n", AII_S3_ACCESS_KEY="")
    assert (read.lease_s, read.s3_secret_key.get_secret_value()) == (30.0, "key")
    assert read.s3_access_key.get_secret_value() == ""


def test_a_home_folder_that_does_not_exist_and_a_stack_file_that_is_none_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stack.env").write_bytes(b"AII_LEASE_S=\xff\xfe\n")
    with pytest.raises(InvalidSetting, match=r"stack\.env"):
        load_settings()
    monkeypatch.setenv("AII_STATE_DIR", "~nobody-of-that-name/aii")
    with pytest.raises(InvalidSetting, match="AII_STATE_DIR"):
        state_dir()


@pytest.mark.parametrize("parse", [parsed_redis_url, parsed_s3_endpoint])
@pytest.mark.parametrize(
    "text", ["://", "@", "redis://[", "http://[::1", "redis://@:/", "\0", "redis://h:\u0661", "http://h:\u0661"]
)
def test_nothing_that_is_written_ends_in_another_error(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match="write it as"):
        parse(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("localhost", True), ("a.localhost", True),
     ("10.0.0.1", False), ("localhost.example.org", False), ("s3", False)],
)  # fmt: skip
def test_what_this_machine_is_called(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


class _Server(ThreadingHTTPServer):
    """Answers everything alike, and remembers what it was asked."""

    def __init__(self, status: int, code: str = "", clock_s: float = 0.0) -> None:
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                owner.asked.append(self.path)
                body = f"<Error><Code>{code}</Code></Error>".encode() if code and self.command != "HEAD" else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = answer  # noqa: N815

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.time() + clock_s, usegmt=True)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        super().__init__(("127.0.0.1", 0), Handler)

    @contextmanager
    def running(self) -> Iterator[str]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{self.server_port}"
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


def test_a_service_on_this_machine_is_reached_without_a_proxy_and_another_proxy_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, proxy = _Server(404), _Server(502)
    with service.running() as address, proxy.running() as named:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://user:secret@{named}")
        assert not ObjectStore.connect(Settings(s3_endpoint=address)).exists(Bucket.RESULTS, "key")
        assert (len(service.asked), proxy.asked) == (1, [])
        with pytest.raises(StorageUnavailable, match=named) as caught:
            ObjectStore.connect(Settings(s3_endpoint="s3.invalid:9000")).exists(Bucket.RESULTS, "key")
        assert "secret" not in caught.value.message
        assert len(service.asked) == 1
        assert proxy_of(f"http://{address}") is None


@pytest.mark.parametrize(("clock_s", "said"), [(-7200, "ahead of"), (7200, "behind")])
@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "AccessDenied"])
def test_a_clock_that_is_off_is_named_with_the_difference(clock_s: float, said: str, code: str) -> None:
    server = _Server(403, code, clock_s)
    with server.running() as address, pytest.raises(StorageUnavailable, match=f"120 minutes {said}"):
        ObjectStore.connect(Settings(s3_endpoint=address)).get(Bucket.RESULTS, "key", 1)


def test_keys_that_are_refused_by_a_server_whose_clock_agrees_are_blamed_themselves() -> None:
    with _Server(403, "AccessDenied").running() as address, pytest.raises(AiiError, match="AII_S3_SECRET_KEY"):
        ObjectStore.connect(Settings(s3_endpoint=address)).get(Bucket.RESULTS, "key", 1)
