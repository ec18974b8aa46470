"""From a bucket to jobs: every object becomes one job, whatever dies and whatever S3 forgets to tell."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote_plus

import boto3
import pytest
from obstore.store import S3Store

from producer.ingest.bridge import Bridge, Wanted
from producer.ingest.notifications import Notifications, list_key, uploads
from tasks.connection import connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.settings import Settings
from tests.buckets import made_bucket
from tests.gateway import client_of, new_token, running_gateway
from tests.moto_server import moto_server
from tests.stack import AII, aii
from tests.waiting import wait_for

INBOX = "ingest-inbox"
OBJECTS = int(os.environ.get("AII_INGEST_OBJECTS", "40"))


@pytest.fixture
def environment(stack_environment: dict[str, str]) -> dict[str, str]:
    return stack_environment | {"AII_SOURCE_BUCKETS": INBOX}


@pytest.fixture
def inbox(settings: Settings) -> S3Store:
    """An empty bucket."""
    bucket = made_bucket(settings, INBOX)
    for batch in bucket.list():
        for item in batch:
            bucket.delete(item["path"])
    return bucket


def record(key: str, etag: str, event: str = "s3:ObjectCreated:Put") -> dict[str, object]:
    """As MinIO writes it."""
    return {
        "eventVersion": "2.0",
        "eventName": event,
        "s3": {"bucket": {"name": INBOX}, "object": {"key": quote_plus(key), "size": 1, "eTag": etag.strip('"')}},
    }


def told(key: str, etag: str, event: str = "s3:ObjectCreated:Put") -> str:
    return json.dumps([{"Event": [record(key, etag, event)], "EventTime": "2026-01-01T00:00:00Z"}])


def put(inbox: S3Store, key: str) -> str:
    return inbox.put(key, key.encode())["e_tag"] or ""


def waiting(settings: Settings) -> list[str]:
    return sorted(str(job.asset_id) for job in Operations.connect(settings).jobs(JobState.QUEUED, 10_000))


def test_no_object_is_missed_and_none_is_submitted_twice(
    settings: Settings, environment: dict[str, str], inbox: S3Store, tmp_path: Path
) -> None:
    """The bridge is killed three times, a tenth of the notifications are lost, and some come twice."""
    keys = [f"a folder/ä {number}+.jpg" for number in range(OBJECTS)]
    etags = {key: put(inbox, key) for key in keys}
    with connect_redis(settings) as client, (tmp_path / "log").open("w") as log:
        notifications = Notifications(client, list_key(INBOX))
        for killed in range(3):
            for number, key in enumerate(keys[killed::3]):
                for _ in range(0 if number % 10 == 0 else 1 + number % 2):
                    notifications.append(told(key, etags[key]))
            process = subprocess.Popen([*AII, "ingest", "--bucket", INBOX], env=environment, stdout=log, stderr=log)
            wait_for(lambda: Operations.connect(settings).counts().get("submitted", 0), "nothing was submitted")
            process.kill()
            process.wait()
        done = aii(environment, "ingest", "--bucket", INBOX, "--once")
        assert done.returncode == 0, done.stderr
        assert client.keys(f"{list_key(INBOX)}*") == []
    assert waiting(settings) == sorted(keys)
    assert Operations.connect(settings).counts()["submitted"] == OBJECTS


def test_new_content_of_a_key_is_a_job_of_its_own_and_only_a_prefix_is_taken(
    settings: Settings, environment: dict[str, str], inbox: S3Store
) -> None:
    put(inbox, "in/a.jpg")
    put(inbox, "other.jpg")
    command = ("ingest", "--bucket", INBOX, "--prefix", "in/", "--once")
    assert aii(environment, *command).returncode == 0
    inbox.put("in/a.jpg", b"new")
    assert aii(environment, *command).returncode == 0
    assert waiting(settings) == ["in/a.jpg", "in/a.jpg"]


def test_a_folder_that_cannot_be_listed_is_named_and_keeps_no_other_from_a_sweep(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    """Nor are objects without content submitted: a folder's entry, whose name may have a dot, and a file."""
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    with moto_server(tmp_path) as address:
        s3 = boto3.client("s3", endpoint_url=f"http://{address}", **keys)
        s3.create_bucket(Bucket=INBOX)
        for key in ("a.jpg", "in/b.jpg", "in//c.jpg", "in/two/d.jpg", "other/e + é.jpg"):
            s3.put_object(Bucket=INBOX, Key=key, Body=b"x")
        for key in ("other/", "photos.2024/", "empty.jpg"):
            s3.put_object(Bucket=INBOX, Key=key, Body=b"")
        keys = {"AII_S3_ENDPOINT": address, "AII_S3_ACCESS_KEY": "key", "AII_S3_SECRET_KEY": "secret"}
        done = aii(environment | keys, "ingest", "--bucket", INBOX, "--once")
        assert (done.returncode, f"s3://{INBOX}/in" in done.stderr.splitlines()[-1]) == (1, True), done.stderr
        assert waiting(settings) == ["a.jpg", "other/e + é.jpg"]
        other = aii(environment | keys, "ingest", "--bucket", INBOX, "--once", "--prefix", "other/")
        assert other.returncode == 0, other.stderr
    with connect_redis(settings) as redis:
        (letter,) = DeadLetters(redis).newest(10)
    assert f"s3://{INBOX}/in" in letter.reason
    assert "WARNING" in done.stderr
    assert f"3 objects of {INBOX} are empty" in done.stderr


def test_objects_can_be_queried_instead(settings: Settings, environment: dict[str, str], inbox: S3Store) -> None:
    put(inbox, "suspect.jpg")
    assert aii(environment, "ingest", "--bucket", INBOX, "--query", "--once").returncode == 0
    (job,) = Operations.connect(settings).jobs(JobState.QUEUED, 10)
    assert job.task == "aii.query"


class Listing(BaseHTTPRequestHandler):
    """An S3 server whose bucket has a folder's own entry, and a key that the client cannot read."""

    keys = ("folder/", "photo.jpg")

    def do_GET(self) -> None:
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>x</ETag>"
            f"<Size>{int(key[-1] != '/')}</Size></Contents>"
            for key in self.keys
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class OddListing(Listing):
    keys = ("a//b.jpg", "photo.jpg")


@pytest.mark.parametrize(("listing", "swept"), [(Listing, ["photo.jpg"]), (OddListing, [])])
def test_a_key_that_the_client_cannot_read_keeps_no_notification_waiting(
    settings: Settings, listing: type[Listing], swept: list[str]
) -> None:
    end = threading.Event()
    with HTTPServer(("127.0.0.1", 0), listing) as server, connect_redis(settings) as client:
        endpoint = f"127.0.0.1:{server.server_port}"
        other = settings.model_copy(update={"s3_endpoint": endpoint, "source_buckets": (INBOX,)})
        threads = [
            threading.Thread(target=server.serve_forever),
            threading.Thread(target=Bridge(other, Wanted(INBOX, "starter")).run, args=(end,)),
        ]
        for thread in threads:
            thread.start()
        try:
            Notifications(client, list_key(INBOX)).append(told("told.jpg", "y"))
            wait_for(lambda: waiting(settings) == sorted([*swept, "told.jpg"]), "it was not submitted")
        finally:
            end.set()
            threads[1].join()
            server.shutdown()


@pytest.mark.usefixtures("inbox")
def test_what_is_no_notification_is_set_aside_and_removals_are_ignored(
    settings: Settings, environment: dict[str, str]
) -> None:
    with connect_redis(settings) as client:
        notifications = Notifications(client, list_key(INBOX))
        notifications.append('{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "inbox"}')
        for text in ("{", "[1]", "{}", '[{"Event": [1]}]', '[{"Event": [{"eventName": "s3:ObjectCreated:Put"}]}]'):
            notifications.append(text)
        notifications.append('{"Records":' * 100_000)
        client.rpush(
            list_key(INBOX), b"\xff", told("half", "").replace("half", "\udcff").encode(errors="surrogateescape")
        )
        notifications.append(told("half", "").replace("half", "\\ud800"))
        notifications.append(told("gone.jpg", "", "s3:ObjectRemoved:Delete"))
        notifications.append(told("a folder/", "d41d8cd98f00b204e9800998ecf8427e"))
        assert aii(environment, "ingest", "--bucket", INBOX, "--once").returncode == 0
        assert DeadLetters(client).count() == 9
    assert waiting(settings) == []


def test_a_bucket_that_the_settings_do_not_name_is_refused(environment: dict[str, str]) -> None:
    refused = aii(environment, "ingest", "--bucket", "other", "--once")
    assert (refused.returncode, "AII_SOURCE_BUCKETS" in refused.stderr) == (2, True)


def test_s3_may_tell_the_gateway_and_a_client_may_name_an_object(
    settings: Settings, environment: dict[str, str], inbox: S3Store, tmp_path: Path
) -> None:
    environment |= {"AII_GATEWAY_TOKEN_FILE": str(tmp_path / "tokens.json")}
    etag = put(inbox, "a.jpg")
    with (
        running_gateway(environment, tmp_path / "log") as address,
        client_of(address, new_token(environment, "--scope", "submit", "--scope", "query")) as client,
    ):
        assert client.post("/v1/notifications", json={"Records": [record("a.jpg", etag)]}).status_code == 204
        assert (
            client.post("/v1/notifications", json={"Records": [{"eventName": "s3:ObjectCreated:"}]}).status_code == 400
        )
        key = {"Idempotency-Key": "order-17"}
        named, again = (
            client.post("/v1/activations", json={"source": f"s3://{INBOX}/b.jpg", "asset_id": "b"}, headers=key)
            for _ in range(2)
        )
        assert (named.status_code, again.json()["new"]) == (202, False)
        assert client.post("/v1/queries", json={"source": "s3://originals/b.jpg"}).json()["code"] == "invalid_request"
    with connect_redis(settings) as client:
        (text,) = client.lrange(list_key(INBOX), 0, -1)
    assert [one.key for one in uploads(text)] == ["a.jpg"]
