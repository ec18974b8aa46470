"""What the policies of deploy/security allow in S3: enough for each one's work, and no more.

The server is moto's, in a process of its own: it checks signatures and evaluates policies, which the local stack's S3
does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from pydantic import SecretStr

from producer import Producer
from producer.gateway.uploads import GatewayStore
from producer.ingest.bridge import LeftOut, SourceStore
from tasks.assets.removals import Removals
from tasks.documents import read_result
from tasks.errors import AlreadyProtected, StorageUnavailable
from tasks.names import result_key
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.moto_server import check_all, moto_server
from tests.photographs import crops
from tests.stack import WorkerProcess, aii
from tests.waiting import LIMIT_S

POLICIES = Path(__file__).parents[2] / "deploy" / "security"
UNCHECKED = {"aws_access_key_id": "set-up", "aws_secret_access_key": "set-up", "region_name": "us-east-1"}
READ, WRITE = "read", "write"


@dataclass(frozen=True)
class GuardedStore:
    """An S3 server with the users; their keys."""

    address: str
    keys: Mapping[str, tuple[str, str]]

    def settings_of(self, user: str, settings: Settings) -> Settings:
        access, secret = self.keys[user]
        changed = {"s3_endpoint": self.address, "s3_access_key": SecretStr(access), "s3_secret_key": SecretStr(secret)}
        return settings.model_copy(update=changed)

    def environment_of(self, user: str) -> dict[str, str]:
        access, secret = self.keys[user]
        return {"AII_S3_ENDPOINT": self.address, "AII_S3_ACCESS_KEY": access, "AII_S3_SECRET_KEY": secret}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStore]:
    with moto_server(tmp_path_factory.mktemp("s3"), unchecked=1000) as address:  # until the users are there
        yield GuardedStore(address, _set_up(f"http://{address}"))


def _set_up(url: str) -> dict[str, tuple[str, str]]:
    """Make buckets, users and keys; from then on, every request is checked."""
    s3, iam = (boto3.client(name, endpoint_url=url, **UNCHECKED) for name in ("s3", "iam"))
    keys = {}
    for bucket in Bucket:
        s3.create_bucket(Bucket=bucket.value)
        s3.put_object(Bucket=bucket.value, Key="there", Body=b"x")
    s3.create_bucket(Bucket="inbox")
    s3.put_object(Bucket="inbox", Key="there", Body=b"x")
    for user in ("producer", "worker", "monitor", "gateway", "ingest"):
        policy = (POLICIES / f"s3-{user}.json").read_text()
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName=user, PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        keys[user] = (key["AccessKeyId"], key["SecretAccessKey"])
    check_all(url.removeprefix("http://"))
    return keys


ALLOWED = {
    "producer": {
        Bucket.ORIGINALS: {WRITE}, Bucket.QUERIES: {WRITE}, Bucket.PROTECTED: {READ}, Bucket.RESULTS: {READ},
        Bucket.COLLECTIONS: set(), Bucket.EXTRACTORS: set(),
    },
    "worker": {
        Bucket.ORIGINALS: {READ}, Bucket.QUERIES: {READ}, Bucket.PROTECTED: {READ, WRITE},
        Bucket.RESULTS: {READ, WRITE}, Bucket.COLLECTIONS: {READ, WRITE}, Bucket.EXTRACTORS: {READ},
    },
    "gateway": {
        Bucket.ORIGINALS: {WRITE}, Bucket.QUERIES: {WRITE}, Bucket.PROTECTED: {READ}, Bucket.RESULTS: {READ},
        Bucket.COLLECTIONS: set(), Bucket.EXTRACTORS: set(),
    },
    "ingest": {bucket: set() for bucket in Bucket},
    "monitor": {
        Bucket.ORIGINALS: {READ}, Bucket.QUERIES: set(), Bucket.PROTECTED: {READ}, Bucket.RESULTS: {READ},
        Bucket.COLLECTIONS: set(), Bucket.EXTRACTORS: set(),
    },
}  # fmt: skip


@pytest.mark.parametrize("user", list(ALLOWED))
def test_each_user_reads_and_writes_its_own_buckets_only(
    guarded: GuardedStore, shared_settings: Settings, user: str
) -> None:
    store = ObjectStore.connect(guarded.settings_of(user, shared_settings))
    assert {bucket: _possible(store, bucket) for bucket in Bucket} == ALLOWED[user]


def test_the_gateway_keeps_large_images_and_notes_removals(guarded: GuardedStore, shared_settings: Settings) -> None:
    store = GatewayStore.connect(guarded.settings_of("gateway", shared_settings))

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(7):
            yield b"x" * 2**20

    kept = asyncio.run(store.keep(Bucket.ORIGINALS, chunks(), 2**24))
    worker = ObjectStore.connect(guarded.settings_of("worker", shared_settings))
    assert worker.size(Bucket.ORIGINALS, kept.sha256) == kept.size == 7 * 2**20
    removals = Removals(store, "any")
    removals.note("asset", "1-0")
    assert removals.entry("asset") == "1-0"


def test_the_bridge_finds_objects_and_a_worker_reads_them(guarded: GuardedStore, shared_settings: Settings) -> None:
    settings = shared_settings.model_copy(update={"source_buckets": ("inbox",)})
    bridge = SourceStore.connect(guarded.settings_of("ingest", settings))
    assert [one.key for one in bridge.uploaded("inbox", "", LeftOut())] == ["there"]
    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        bridge.get_source("inbox", "there", 10)
    worker = ObjectStore.connect(guarded.settings_of("worker", settings))
    assert worker.get_source("inbox", "there", 10) == b"x"


def _possible(store: ObjectStore, bucket: Bucket) -> set[str]:
    attempts = {
        READ: lambda: store.get(bucket, "there", 10),
        WRITE: lambda: store.put(bucket, "new", b"x", "text/plain"),
    }
    return {what for what, attempt in attempts.items() if not _refused(attempt)}


def _refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except StorageUnavailable as error:
        return "AccessDenied" in error.message
    return False


@pytest.mark.parametrize("bucket", list(Bucket))
def test_a_producer_lists_nothing(guarded: GuardedStore, shared_settings: Settings, bucket: Bucket) -> None:
    store = ObjectStore.connect(guarded.settings_of("producer", shared_settings))
    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        list(store.list_keys(bucket))


def test_the_main_job_is_done_with_these_rights(
    guarded: GuardedStore, settings: Settings, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = stack_environment | guarded.environment_of("worker") | {"AII_STATE_DIR": str(tmp_path)}
    environment |= {"AII_REDIS_URL": settings.redis_url.get_secret_value()}
    worker = WorkerProcess(environment, settings, tmp_path / "worker.log", "query,activate")
    try:
        worker.wait_until_ready()
        with Producer.connect(guarded.settings_of("producer", settings)) as producer:
            producer.check()
            result = producer.activate(crops(1)[0], asset_id="asset").wait(LIMIT_S)
            producer.download_protected(result, tmp_path / "protected.jpg")
            answer = producer.query(tmp_path / "protected.jpg").wait(LIMIT_S)
            assert answer.matches[0].asset_id == "asset"
            with pytest.raises(AlreadyProtected):
                producer.activate(tmp_path / "protected.jpg")
        limited = environment | guarded.environment_of("producer")
        shown = aii(limited, "jobs", "show", result.job_id)
        assert (shown.returncode, result.protected_key in shown.stdout) == (0, True), shown.stderr
        page = aii(limited, "query", str(tmp_path / "protected.jpg"), "--html", str(tmp_path / "page.html"))
        assert (page.returncode, "lacks protected images" in page.stderr) == (0, True), page.stderr
        monitor = ObjectStore.connect(guarded.settings_of("monitor", settings))
        assert read_result(monitor, result.job_id).status == result.status
        producers = ObjectStore.connect(guarded.settings_of("producer", settings))
        for bucket, key in (
            (Bucket.RESULTS, result_key(result.job_id)),
            (Bucket.PROTECTED, result.protected_key),
            (Bucket.COLLECTIONS, "starter/current.json"),
        ):
            with pytest.raises(StorageUnavailable, match="AccessDenied"):
                producers.put(bucket, key, b"forged", "text/plain")
    finally:
        worker.kill()
