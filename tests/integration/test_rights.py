"""What the users of deploy/security may do in Redis: enough for their work, and no more."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from fastapi.testclient import TestClient
from pydantic import SecretStr

from deploy.local.redis_server import choose_server
from producer import Producer
from producer.gateway.app import create_gateway
from tasks.ledger.keys import INCARNATIONS, job_key
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, Source
from tasks.monitoring.observer import read_overview
from tasks.names import QUEUE_ACTIVATE
from tasks.settings import Settings
from tasks.shares import share_queue
from tests.buckets import made_bucket
from tests.photographs import crops
from tests.ports import reserved_port
from tests.stack import WorkerProcess, aii
from tests.waiting import LIMIT_S, wait_for

ACL = Path(__file__).parents[2] / "deploy" / "security" / "redis.acl"
USERS = ("admin", "worker", "producer", "gateway", "monitor", "ingest", "minio")


@dataclass(frozen=True)
class Guarded:
    """A Redis with the users of the file, and the session's S3."""

    settings: Settings
    environment: dict[str, str]
    port: int

    def url(self, user: str) -> str:
        return f"redis://{user}:{user}-password@127.0.0.1:{self.port}/0"

    def settings_of(self, user: str) -> Settings:
        return self.settings.model_copy(update={"redis_url": SecretStr(self.url(user))})

    def environment_of(self, user: str) -> dict[str, str]:
        return self.environment | {"AII_REDIS_URL": self.url(user)}

    def client(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(user), decode_responses=True)

    def denied(self, user: str) -> list[str]:
        """What was refused to a user so far."""
        with self.client("admin") as admin:
            log = admin.execute_command("ACL", "LOG")
        return [f"{entry['reason']} {entry['object']}" for entry in log if entry["username"] == user]


def request(asset_id: str = "other") -> ActivateRequest:
    source = Source(sha256="0" * 64, size=1)
    return ActivateRequest(collection="starter", asset_id=asset_id, source=source)


@pytest.fixture
def guarded(shared_settings: Settings, stack_environment: dict[str, str], tmp_path: Path) -> Iterator[Guarded]:
    text = ACL.read_text()
    for user in USERS:
        text = text.replace(f"{user.upper()}_PASSWORD", f"{user}-password")
    acl, port = tmp_path / "users.acl", reserved_port()
    acl.write_text(text)
    # A bucket of its own: what is compacted and removed here is not what other tests count.
    settings = shared_settings.model_copy(update={"bucket_collections": "collections-of-rights"})
    environment = stack_environment | {"AII_BUCKET_COLLECTIONS": settings.bucket_collections}
    guarded = Guarded(settings, environment, port)
    options = ("--port", str(port), "--aclfile", str(acl), "--save", "", "--dir", str(tmp_path))
    with (tmp_path / "redis.log").open("w") as log:
        process = subprocess.Popen([choose_server(tmp_path).path, *options], stdout=log)
    try:
        wait_for(lambda: _answers(guarded), "Redis does not take the file of users")
        yield guarded
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _answers(guarded: Guarded) -> bool:
    try:
        with guarded.client("admin") as admin:
            return bool(admin.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def worker(guarded: Guarded, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Waited for as the administrator: the tests' search for its note is none of a worker's rights."""
    worker = WorkerProcess(
        guarded.environment_of("worker"), guarded.settings_of("admin"), tmp_path / "worker.log", "query,activate,index"
    )
    try:
        yield worker.wait_until_ready()
    finally:
        worker.kill()


def test_each_user_can_do_its_work(guarded: Guarded, worker: WorkerProcess, tmp_path: Path) -> None:
    """The main job, the keeping of collections and the overview, without one refusal."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(crops(1)[0])
    activated = aii(guarded.environment_of("producer"), "activate", str(photo), "--out", str(tmp_path / "out"))
    assert activated.returncode == 0, (activated.stderr, guarded.denied("producer"))
    queried = aii(guarded.environment_of("producer"), "query", str(photo))
    assert queried.returncode == 0, queried.stderr
    for arguments in (("compact", "starter"), ("remove", "starter", photo.stem), ("repair", "starter")):
        kept = aii(guarded.environment_of("worker"), "index", *arguments)
        assert "does not let" not in kept.stderr, kept.stderr
    for arguments in (("status",), ("jobs", "list", "done")):
        seen = aii(guarded.environment_of("monitor"), *arguments)
        assert seen.returncode == 0, seen.stderr
    assert worker.stop() == 0
    assert [guarded.denied(user) for user in ("worker", "producer", "monitor")] == [[], [], []]


@pytest.mark.usefixtures("worker")
def test_the_gateway_submits_shows_and_removes_with_its_own_rights(guarded: Guarded) -> None:
    token = [{"name": "any", "sha256": hashlib.sha256(b"any").hexdigest(), "scopes": ["admin"], "open_jobs": 1}]
    settings = guarded.settings_of("gateway").model_copy(update={"gateway_tokens": json.dumps(token)})
    headers = {"Authorization": "Bearer any", "Content-Type": "image/jpeg", "Prefer": "wait=30"}
    with TestClient(create_gateway(settings), headers=headers) as client:
        assert client.get("/health").status_code == 200
        job = client.post("/v1/activations?asset_id=one", content=crops(2)[1]).headers["Location"]
        wait_for(lambda: client.get(job).json()["state"] == "done", "the job did not end")
        assert client.get("/v1/assets/one").status_code == 200
        assert client.delete("/v1/assets/one").status_code == 204
        assert client.post("/v1/takedowns", json={"sha256": "0" * 64}).json() == {"removed": []}
    assert guarded.denied("gateway") == []
    assert aii(guarded.environment_of("monitor"), "audit").stdout.count("remove") == 1
    with guarded.client("gateway") as client:
        for command in (("XRANGE", "aii:audit", "-", "+"), ("XTRIM", "aii:audit", "MAXLEN", 0), ("DEL", "aii:audit")):
            with pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM"):
                client.execute_command(*command)


def test_s3_tells_and_the_bridge_submits_with_their_own_rights(guarded: Guarded) -> None:
    bucket = made_bucket(guarded.settings, "inbox-of-rights")
    bucket.put("swept.jpg", b"x")
    environment = guarded.environment_of("ingest") | {"AII_SOURCE_BUCKETS": "inbox-of-rights"}
    with guarded.client("minio") as minio:
        minio.rpush("aii:ingest:inbox-of-rights", "no notification")
        for command in (("LRANGE", "aii:ingest:inbox-of-rights", 0, -1), ("RPUSH", "activate", "x"), ("KEYS", "*")):
            with pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM"):
                minio.execute_command(*command)
    done = aii(environment, "ingest", "--bucket", "inbox-of-rights", "--once")
    assert (done.returncode, guarded.denied("ingest")) == (0, []), done.stderr
    with guarded.client("admin") as admin:
        queue = share_queue("activate", "ingest:inbox-of-rights")
        assert (admin.llen(queue), admin.xlen("aii:dead")) == (1, 1)
    with guarded.client("ingest") as ingest, pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM"):
        ingest.execute_command("XADD", "aii:journal:starter", "*", "op", "remove")


def test_flower_shows_its_page_to_the_monitor(guarded: Guarded, tmp_path: Path) -> None:
    """Celery's remote control, which could stop workers, stays closed to it."""
    port = reserved_port()
    environment = guarded.environment_of("monitor") | {"AII_FLOWER_PORT": str(port), "AII_FLOWER_PASSWORD": "flower"}
    with (tmp_path / "flower.log").open("w") as log:
        flower = subprocess.Popen([sys.executable, "-m", "deploy.flower"], env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: _page(port, "/metrics"), "Flower does not answer")
        wait_for(lambda: "aii_queue_jobs" in _page(port, "/metrics"), "Flower has no overview")
    finally:
        flower.terminate()
        flower.wait(LIMIT_S)
    assert {line for line in guarded.denied("monitor") if "pidbox" not in line} <= {"command publish"}


def _page(port: int, path: str) -> str:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    asked.add_header("Authorization", "Basic " + base64.b64encode(b"operator:flower").decode())
    try:
        with urllib.request.urlopen(asked, timeout=LIMIT_S) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return ""


FORBIDDEN_TO_PRODUCERS = [
    ("HSET", "aii:incarnations", "starter", "another"),
    ("XADD", "aii:journal:starter", "*", "op", "remove", "asset", "a"),
    ("HSET", "aii:journal:starter:live", "a", "1-1 remove"),
    ("DEL", "aii:journal:starter"),
    ("SET", "aii:writing:starter", "me"),
    ("XADD", "aii:events", "*", "subject", "a"),
    ("XTRIM", "aii:events", "MAXLEN", "0"),
    ("XRANGE", "aii:journal:starter", "-", "+"),
    ("ZRANGE", "aii:open:activate", "0", "-1"),
    ("ZRANGE", "aii:since:activate", "0", "-1"),
    ("ZRANGE", "aii:closed:failed", "0", "-1"),
    ("ZRANGE", "aii:leases", "0", "-1"),
    ("ZREM", "aii:open:activate", "a"),
    ("LRANGE", "activate", "0", "-1"),
    ("RPOP", "activate"),
    ("DEL", "activate"),
    ("LPUSH", "index", "a message"),
    ("HGETALL", "unacked"),
    ("SET", "aii:worker:me", "a note"),
    ("PUBLISH", "/0.celery.pidbox", "shutdown"),
    ("SUBSCRIBE", "/0.celeryev/task.sent"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("MONITOR",),
    ("CLIENT", "LIST"),
    ("EVAL", "return redis.call('XADD', 'aii:journal:starter', '*', 'op', 'remove', 'asset', 'a')", "0"),
    ("EVAL", "return redis.call('ZRANGE', KEYS[1], 0, -1)", "1", "aii:open:activate"),
    ("EVAL", "return redis.call('LRANGE', 'activate', 0, -1)", "0"),
]


@pytest.mark.parametrize("command", FORBIDDEN_TO_PRODUCERS, ids=lambda command: " ".join(command[:2])[:60])
def test_a_producer_can_neither_write_collections_nor_find_the_jobs_of_others(
    guarded: Guarded, command: tuple[str, ...]
) -> None:
    with guarded.client("producer") as client, pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM"):
        client.execute_command(*command)


def test_a_producer_submits_and_reads_the_job_whose_id_it_knows(guarded: Guarded) -> None:
    with closing(Producer.connect(guarded.settings_of("producer"))) as producer:
        made = request()
        assert producer.ledger.submit([made]) == [True]
        assert producer.ledger.get(made.job_id).state is JobState.QUEUED


@pytest.mark.parametrize("user", ["producer", "gateway", "ingest"])
def test_who_submits_a_job_of_a_deleted_collection_opens_it_again(guarded: Guarded, user: str) -> None:
    made = request(f"again-{user}")
    with closing(Producer.connect(guarded.settings_of(user))) as producer, guarded.client("worker") as worker:
        producer.ledger.submit([made])
        worker.hset(job_key(made.job_id), mapping={"state": "done", "incarnation": "former"})
        worker.hset(INCARNATIONS, made.collection, "former")
        assert producer.ledger.submit([made]) == [False]
        worker.hset(INCARNATIONS, made.collection, "present")
        assert producer.ledger.submit([made]) == [True]


def test_a_producer_whose_late_query_cannot_be_withdrawn_is_told_so(guarded: Guarded, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(crops(1)[0])
    late = aii(guarded.environment_of("producer"), "query", str(photo), "--timeout", "0.3")
    assert (late.returncode, "could not be withdrawn: Redis" in late.stdout) == (1, True), late.stdout
    assert "does not let this user do that" in late.stdout
    allowed = aii(guarded.environment_of("worker"), "query", str(photo), "--timeout", "0.3")
    assert "the question was withdrawn" in allowed.stdout


FORBIDDEN_TO_MONITORS = [
    ("HSET", "aii:job:0", "state", "done"),
    ("LPUSH", "activate", "a message"),
    ("XADD", "aii:journal:starter", "*", "op", "remove", "asset", "a"),
    ("DEL", "aii:leases"),
    ("PUBLISH", "/0.celery.pidbox", "shutdown"),
    ("FLUSHALL",),
]


@pytest.mark.parametrize("command", FORBIDDEN_TO_MONITORS, ids=lambda command: " ".join(command[:2]))
def test_a_monitor_changes_nothing(guarded: Guarded, command: tuple[str, ...]) -> None:
    with guarded.client("monitor") as client, pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM"):
        client.execute_command(*command)


def test_a_monitor_sees_what_waits(guarded: Guarded) -> None:
    with closing(Producer.connect(guarded.settings_of("producer"))) as producer:
        producer.ledger.submit([request()])
    waiting = {queue.queue: queue.waiting for queue in read_overview(guarded.settings_of("monitor")).queues}
    assert waiting[QUEUE_ACTIVATE] == 1


@pytest.mark.parametrize("command", [("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("SET", "other", "x")])
def test_a_worker_administrates_nothing(guarded: Guarded, command: tuple[str, ...]) -> None:
    with guarded.client("worker") as client, pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM"):
        client.execute_command(*command)


def test_no_one_connects_without_a_password(guarded: Guarded) -> None:
    with redis.Redis(port=guarded.port) as anonymous, pytest.raises(redis.AuthenticationError):
        anonymous.ping()
