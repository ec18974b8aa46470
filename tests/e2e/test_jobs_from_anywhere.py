"""``aii up`` with all that takes jobs from elsewhere and tells of their ends: buckets, the HTTP gateway, webhooks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx2 as httpx
import psutil
import pytest
from obstore.store import S3Store

from deploy.local.instance import running
from tasks.connection import connect_redis
from tasks.settings import Settings
from tests.buckets import made_bucket
from tests.gateway import client_of, new_token
from tests.photographs import crops
from tests.ports import reserved_port
from tests.receiver import Receiver
from tests.stack import aii, running_stack, settings_of
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(reserved_port())
    with receiver.listening():
        yield receiver


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> tuple[Path, str]:
    """A folder in whose stack there are a hook and a token, and the token."""
    state = tmp_path_factory.mktemp("anywhere")
    with running_stack(state) as environment:
        assert aii(environment, "hooks", "add", receiver.url).returncode == 0
        secret = new_token(environment, "--scope", "admin")
    return state, secret


@pytest.fixture(scope="module")
def client(token: tuple[Path, str]) -> Iterator[httpx.Client]:
    """Of the gateway that `aii up` started, beside workers and bridges."""
    state, secret = token
    with running_stack(state, 1, AII_INGEST_BUCKETS="inbox, suspects:query"):
        status = running(state)
        assert status
        with client_of(status.lines["Gateway"], secret) as client:
            yield client


def told(settings: Settings, bucket: str, key: str, etag: str) -> None:
    """As MinIO writes it."""
    s3 = {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), "eTag": etag.strip('"')}}
    event = [{"Event": [{"eventName": "s3:ObjectCreated:Put", "s3": s3}], "EventTime": "2026-01-01T00:00:00Z"}]
    with connect_redis(settings) as redis:
        redis.rpush(f"aii:ingest:{bucket}", json.dumps(event))


def put(bucket: S3Store, key: str, data: bytes) -> str:
    return bucket.put(key, data)["e_tag"] or ""


def asset(client: httpx.Client, asset_id: str) -> dict[str, Any] | None:
    answer = client.get(f"/v1/assets/{asset_id}")
    return answer.json() if answer.status_code == httpx.codes.OK else None


def test_an_object_of_a_bucket_becomes_a_protected_file_that_another_bucket_finds(
    client: httpx.Client, token: tuple[Path, str], receiver: Receiver
) -> None:
    settings = settings_of(token[0])
    inbox, suspects = (made_bucket(settings, name) for name in ("inbox", "suspects"))
    photo, other = crops(2, side=160)
    told(settings, "inbox", "in/a photo.jpg", put(inbox, "in/a photo.jpg", photo))
    made = wait_for(lambda: asset(client, "in/a photo.jpg"), "a told object was not protected")
    protected = httpx.get(made["protected_url"], trust_env=False).content
    assert hashlib.sha256(protected).hexdigest() == made["protected_sha256"]

    kill_bridges()
    put(inbox, "untold.jpg", other)  # S3 does not tell of it, and no bridge runs
    wait_for(lambda: asset(client, "untold.jpg"), "an object that was not told of was not found")

    told(settings, "suspects", "copy.jpg", put(suspects, "copy.jpg", protected))
    answer = wait_for(lambda: answered(client, receiver), "the query was not answered, or not told")
    assert answer["matches"][0]["asset_id"] == "in/a photo.jpg"


def kill_bridges() -> None:
    bridges = [one for one in psutil.Process().children(recursive=True) if "ingest" in command_line(one)]
    assert len(bridges) == 2
    for bridge in bridges:
        bridge.kill()


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # another test's, which has ended
        return []


def answered(client: httpx.Client, receiver: Receiver) -> dict[str, Any] | None:
    """The result of the query whose end a webhook told."""
    for event in receiver.events():
        if event["data"]["task"] == "aii.query":
            result: dict[str, Any] = client.get(f"/v1/jobs/{event['data']['job_id']}").json()["result"]
            return result
    return None
