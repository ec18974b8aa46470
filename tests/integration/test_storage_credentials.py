"""Temporary keys of S3: a session token, a web identity and a role, for objects and for the administration alike."""

from __future__ import annotations

import datetime
import json
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from pydantic import SecretStr

from deploy.buckets.client import administrator
from tasks.errors import InvalidSetting, StorageUnavailable
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.moto_server import check_all, moto_server

_ROLE = "arn:aws:iam::123456789012:role/aii"
_TOKEN = "token of this service account"
_UNCHECKED = {"aws_access_key_id": "set-up", "aws_secret_access_key": "set-up", "region_name": "us-east-1"}


class Issuer:
    """Gives keys of the role out: to who shows the token, as an STS does, and to who just asks, as the address does
    that a container is given."""

    def __init__(self, s3_address: str, keys: dict[str, str]) -> None:
        self._sts = boto3.client("sts", endpoint_url=f"http://{s3_address}", **keys)
        self.valid_s = 3600
        self.issued = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys, expires = owner.keys()
                self._answer({"AccessKeyId": keys["AccessKeyId"], "SecretAccessKey": keys["SecretAccessKey"],
                              "Token": keys["SessionToken"], "Expiration": expires})  # fmt: skip

            def do_POST(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                if asked.get("WebIdentityToken") != [_TOKEN] or asked.get("RoleArn") != [_ROLE]:
                    self.send_error(403)
                    return
                keys, expires = owner.keys()
                fields = "".join(f"<{n}>{keys[n]}</{n}>" for n in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
                self._answer(
                    '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                    f"<AssumeRoleWithWebIdentityResult><Credentials>{fields}<Expiration>{expires}</Expiration>"
                    "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
                )

            def _answer(self, body: dict[str, str] | str) -> None:
                data = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def keys(self) -> tuple[dict[str, str], str]:
        self.issued += 1
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.valid_s)
        keys = self._sts.assume_role(RoleArn=_ROLE, RoleSessionName="aii")["Credentials"]
        return keys, expires.strftime("%Y-%m-%dT%H:%M:%SZ")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """An S3 server that checks every signature and lets the role in; and keys of one who may take it."""
    with moto_server(tmp_path_factory.mktemp("s3"), unchecked=1000) as address:
        iam, s3 = (boto3.client(name, endpoint_url=f"http://{address}", **_UNCHECKED) for name in ("iam", "s3"))
        for bucket in Bucket:
            s3.create_bucket(Bucket=bucket.value)
        anyone = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.create_role(RoleName="aii", AssumeRolePolicyDocument=json.dumps(anyone))
        iam.put_role_policy(RoleName="aii", PolicyName="aii", PolicyDocument=json.dumps(anyone))
        iam.create_user(UserName="issuer")
        iam.put_user_policy(UserName="issuer", PolicyName="issuer", PolicyDocument=json.dumps(anyone))
        key = iam.create_access_key(UserName="issuer")["AccessKey"]
        given = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        check_all(address)
        yield address, _UNCHECKED | given


@pytest.fixture
def issuer(guarded: tuple[str, dict[str, str]]) -> Iterator[Issuer]:
    issuer = Issuer(*guarded)
    yield issuer
    issuer.close()


@pytest.fixture
def settings(
    guarded: tuple[str, dict[str, str]], issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    for name in ("ROLE_ARN", "WEB_IDENTITY_TOKEN_FILE", "CONTAINER_AUTHORIZATION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    (tmp_path / "token").write_text(f"{_TOKEN}\n")
    return Settings(s3_endpoint=guarded[0], s3_token_file=str(tmp_path / "token"), s3_sts_endpoint=issuer.url,
                    s3_role_arn=_ROLE)  # fmt: skip


def check(settings: Settings) -> None:
    """Both clients do their work with these keys."""
    store = ObjectStore.connect(settings)
    store.put(Bucket.RESULTS, "key.json", b"x", "text/plain")
    assert store.get(Bucket.RESULTS, "key.json", 10) == b"x"
    assert administrator(settings).bucket_exists("results")


def test_keys_with_a_session_token_are_used_together(settings: Settings, issuer: Issuer) -> None:
    keys, _ = issuer.keys()
    given = {
        "s3_access_key": SecretStr(keys["AccessKeyId"]),
        "s3_secret_key": SecretStr(keys["SecretAccessKey"]),
        "s3_session_token": SecretStr(keys["SessionToken"]),
    }
    check(settings.model_copy(update=given))


def test_a_token_is_exchanged_for_the_keys_of_a_role(settings: Settings, issuer: Issuer) -> None:
    check(settings.model_copy(update={"s3_credentials": "web-identity"}))
    assert issuer.issued > 0


def test_the_role_of_a_container_is_used(settings: Settings, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", issuer.url)
    check(settings.model_copy(update={"s3_credentials": "role"}))
    assert issuer.issued > 0


def test_keys_that_expire_are_renewed_before_they_do(settings: Settings, issuer: Issuer) -> None:
    store = ObjectStore.connect(settings.model_copy(update={"s3_credentials": "web-identity"}))
    store.put(Bucket.RESULTS, "a.json", b"x", "text/plain")
    first = issuer.issued
    store.put(Bucket.RESULTS, "a.json", b"x", "text/plain")
    assert issuer.issued == first
    issuer.valid_s = 5  # less than the margin: good for one request
    brief = ObjectStore.connect(settings.model_copy(update={"s3_credentials": "web-identity"}))
    for _ in range(3):
        brief.put(Bucket.RESULTS, "a.json", b"x", "text/plain")
    assert issuer.issued > first + 1


def test_a_token_that_is_refused_or_missing_is_named(settings: Settings, tmp_path: Path) -> None:
    refused = settings.model_copy(update={"s3_credentials": "web-identity", "s3_role_arn": "arn:aws:iam::1:role/no"})
    with pytest.raises(StorageUnavailable, match="AII_S3_CREDENTIALS") as caught:
        ObjectStore.connect(refused).get(Bucket.RESULTS, "key.json", 10)
    assert "account" not in "".join(traceback.format_exception(caught.value))  # the token
    with pytest.raises(StorageUnavailable, match="AII_S3_CREDENTIALS"):
        administrator(refused).bucket_exists("results")
    with pytest.raises(InvalidSetting, match="AII_S3_TOKEN_FILE"):
        ObjectStore.connect(settings.model_copy(update={"s3_credentials": "web-identity", "s3_token_file": ""}))
