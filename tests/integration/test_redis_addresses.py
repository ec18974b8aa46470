"""Redis by TLS, with certificates and a user of its own, for the ledger and Celery alike; and what is no such Redis."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import trustme
from pydantic import SecretStr

from deploy.local.redis_server import choose_server
from producer import Producer
from tasks import connection
from tasks.app import create_app
from tasks.connection import connect_redis, redis_address
from tasks.errors import AiiError, InvalidSetting, RedisUnavailable
from tasks.names import QUEUE_ACTIVATE
from tasks.settings import Settings
from tests.photographs import crops
from tests.ports import reserved_port
from tests.stack import WorkerProcess
from tests.tls_front import TlsFront
from tests.waiting import LIMIT_S, wait_for

_PASSWORD = "p@ss/word#1"


@dataclass(frozen=True)
class Secured:
    """A Redis by TLS that asks clients for a certificate, and the files with which it lets them in."""

    port: int
    files: str  # as they are written behind the address
    authority: str

    def url(self, login: str = "", host: str = "localhost", files: str | None = None) -> SecretStr:
        return SecretStr(f"rediss://{login}{host}:{self.port}/0?{self.files if files is None else files}")


@pytest.fixture
def secured(settings: Settings, tmp_path: Path) -> Iterator[Secured]:
    servers, clients = trustme.CA(), trustme.CA()
    mine = clients.issue_cert("worker")
    servers.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    front = TlsFront(redis_address(settings), tmp_path, servers, clients)
    authority = f"ssl_ca_certs={tmp_path}/ca.pem"
    files = f"{authority}&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem"
    yield Secured(front.port, files, authority)
    front.close()


@pytest.fixture
def login(settings: Settings) -> Iterator[str]:
    """Of a user of Redis whose password has every character that an address has to quote."""
    with connect_redis(settings) as client:
        client.acl_setuser("tls-user", enabled=True, passwords=[f"+{_PASSWORD}"], keys=["*"], channels=["*"],
                           categories=["+@all"])  # fmt: skip
        yield "tls-user:p%40ss%2Fword%231@"
        client.acl_deluser("tls-user")


def test_a_job_is_done_by_a_worker_that_reaches_redis_by_tls_with_certificates_and_a_user(
    secured: Secured, login: str, settings: Settings, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    by_tls = settings.model_copy(update={"redis_url": secured.url(login)})
    given = stack_environment | {"AII_REDIS_URL": by_tls.redis_url.get_secret_value()}
    worker = WorkerProcess(given, by_tls, tmp_path / "worker.log", "query,activate")
    try:
        worker.wait_until_ready()
        with Producer.connect(by_tls) as producer:
            assert producer.activate(crops(1)[0]).wait(LIMIT_S).job_id
    finally:
        worker.kill()


def test_celery_refuses_a_server_whose_certificate_it_does_not_know(
    secured: Secured, login: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kombu by itself would believe any."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    untrusted = secured.url(login, files="")
    app = create_app(settings.model_copy(update={"redis_url": untrusted}))
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"), app.connection_for_write() as connection:
        connection.default_channel.queue_declare(QUEUE_ACTIVATE)


@pytest.mark.parametrize("which", ["authority", "host name", "client certificate", "no TLS", "TLS by redis://"])
def test_what_is_wrong_with_tls_is_said(
    which: str, secured: Secured, login: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if which == "no TLS":  # a plain Redis waits for the rest of a command, without an answer
        monkeypatch.setitem(connection.SOCKET_OPTIONS, "socket_timeout", 1.0)
    plain = redis_address(settings)
    url, said = {
        "authority": (secured.url(login, files=""), "ssl_ca_certs=FILE"),
        "host name": (secured.url(login, host="127.0.0.1"), "not valid for '127.0.0.1'"),
        "client certificate": (secured.url(login, files=secured.authority), "ssl_certfile=FILE"),
        "no TLS": (SecretStr(f"rediss://{login}{plain}/0"), "does not answer by TLS"),
        "TLS by redis://": (SecretStr(f"redis://{login}localhost:{secured.port}/0"), "rediss://"),
    }[which]
    assert said in problem_with(settings, url, RedisUnavailable)


def test_a_name_in_the_certificate_need_not_be_checked(secured: Secured, login: str, settings: Settings) -> None:
    unnamed = secured.url(login, host="127.0.0.1", files=f"{secured.files}&ssl_check_hostname=false")
    with connect_redis(settings.model_copy(update={"redis_url": unnamed})) as client:
        client.check()


def test_an_authority_may_be_named_for_all_of_a_process(
    secured: Secured, login: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, _, own = secured.files.partition("&")
    monkeypatch.setenv("SSL_CERT_FILE", authority.partition("=")[2])
    with connect_redis(settings.model_copy(update={"redis_url": secured.url(login, files=own)})) as client:
        client.check()


def test_a_password_is_rotated_while_producers_are_open(secured: Secured, login: str, settings: Settings) -> None:
    admin = connect_redis(settings)
    old = settings.model_copy(update={"redis_url": secured.url(login)})
    new = settings.model_copy(update={"redis_url": secured.url("tls-user:new@")})
    images = crops(3)
    with Producer.connect(old) as open_before:
        assert open_before.activate(images[0]).new
        admin.acl_setuser("tls-user", enabled=True, passwords=["+new"])
        with Producer.connect(new) as restarted:
            assert restarted.activate(images[1]).new
            admin.acl_setuser("tls-user", enabled=True, passwords=[f"-{_PASSWORD}"])
            assert restarted.activate(images[2]).new
    assert "refuses the password" in problem_with(settings, old.redis_url, RedisUnavailable)
    admin.close()


def test_what_answers_by_another_protocol_is_no_redis(settings: Settings) -> None:
    assert "is no Redis" in problem_with(settings, SecretStr(f"redis://{settings.s3_endpoint}/0"), InvalidSetting)


def test_a_node_of_a_cluster_is_refused_for_good(settings: Settings, tmp_path: Path) -> None:
    port = reserved_port()
    command = [choose_server(tmp_path).path, "--port", str(port), "--cluster-enabled", "yes", "--dir", str(tmp_path)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=log, stderr=log)
    try:
        url = SecretStr(f"redis://127.0.0.1:{port}/0")
        wait_for(lambda: _answers(port), "the node does not answer")
        assert "single Redis" in problem_with(settings, url, InvalidSetting)
        with connect_redis(settings.model_copy(update={"redis_url": url})) as client:
            with pytest.raises(InvalidSetting, match="Cluster"):
                client.get("key")
            with pytest.raises(InvalidSetting, match="Cluster"):
                client.pipeline().get("a").get("b").execute()
    finally:
        process.kill()
        process.wait()


def problem_with(settings: Settings, url: SecretStr, kind: type[AiiError]) -> str:
    with connect_redis(settings.model_copy(update={"redis_url": url})) as client, pytest.raises(kind) as caught:
        client.check()
    assert "word" not in caught.value.message.replace("password", "")
    return caught.value.message


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
