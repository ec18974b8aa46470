"""A Redis that fails over: workers, producers and the command line go on with the next primary."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from producer import Producer
from tasks.connection import connect_redis
from tasks.errors import InvalidSetting, RedisUnavailable
from tasks.ledger.ledger import Ledger
from tasks.names import journal_stream
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.photographs import crops
from tests.sentinels import SentinelSet
from tests.stack import AII, WorkerProcess
from tests.waiting import LIMIT_S, wait_for

JOBS = 120


@contextmanager
def running_set(folder: Path) -> Iterator[SentinelSet]:
    started = SentinelSet(folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def redis_set(tmp_path: Path) -> Iterator[SentinelSet]:
    with running_set(tmp_path / "set") as started:
        yield started


@pytest.fixture(scope="module")
def unharmed_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    """For tests that only ask it: its start takes seconds."""
    with running_set(tmp_path_factory.mktemp("unharmed") / "set") as started:
        yield started


@pytest.fixture
def behind_sentinels(shared_settings: Settings, redis_set: SentinelSet) -> Settings:
    return shared_settings.model_copy(update={"redis_url": SecretStr(redis_set.url)})


def done(settings: Settings) -> int:
    with connect_redis(settings) as client:
        return int(client.zcard("aii:closed:done"))


@pytest.mark.usefixtures("settings")  # no documents of jobs that are the same
def test_many_jobs_are_done_once_each_although_the_primary_is_killed(
    redis_set: SentinelSet, behind_sentinels: Settings, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = stack_environment | {"AII_REDIS_URL": redis_set.url}
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(crops(JOBS)):
        (folder / f"{number}.jpg").write_bytes(image)
    worker = WorkerProcess(environment, behind_sentinels, tmp_path / "worker.log", "query,activate,index")
    try:
        worker.wait_until_ready()
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            command = subprocess.Popen(
                [*AII, "activate", str(folder), "--steps", "1"], env=environment, stdout=out, stderr=err
            )
            try:
                wait_for(lambda: done(behind_sentinels) >= JOBS // 10, "the jobs did not begin")
                killed = redis_set.kill_primary()
                wait_for(lambda: command.poll() is not None, (tmp_path / "err").read_text)
            finally:
                command.kill()
                command.wait()
        assert command.returncode == 0, (tmp_path / "err").read_text()
        assert redis_set.primary() != killed
        with connect_redis(behind_sentinels) as client:
            entries = client.xrange(journal_stream("starter"))
        assets = Counter(fields["asset"] for _, fields in entries)
        assert (len(assets), set(assets.values())) == (JOBS, {1})
        for said in (tmp_path / "err", worker.log):
            assert "waiting for a failover" in said.read_text()
        assert worker.alive()
    finally:
        worker.kill()


def test_a_producer_that_is_open_during_a_failover_submits_to_the_next_primary(
    redis_set: SentinelSet, behind_sentinels: Settings
) -> None:
    images = crops(3)
    with Producer.connect(behind_sentinels) as producer:
        first = producer.activate(images[0])
        old = redis_set.kill_primary()
        second = producer.activate(images[1])
        assert (first.new, second.new) == (True, True)
        redis_set.bring_back(old)
        wait_for(lambda: "slave" in redis_set.asked(old).role()[0], "the old primary did not become a replica")
        assert producer.activate(images[2]).new
        assert producer.cancel(first.job_id) is not None


def test_what_a_promoted_replica_lacks_is_registered_again_from_s3(
    redis_set: SentinelSet, behind_sentinels: Settings, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = stack_environment | {"AII_REDIS_URL": redis_set.url, "AII_AUTO_REPAIR": "1"}
    worker = WorkerProcess(environment, behind_sentinels, tmp_path / "worker.log", "query,activate,index")
    images, journal, store = crops(2), journal_stream("starter"), ObjectStore.connect(behind_sentinels)
    try:
        worker.wait_until_ready()
        with Producer.connect(behind_sentinels) as producer:
            producer.activate(images[0], asset_id="kept-by-both", again=True).wait(LIMIT_S)
            replica = redis_set.lose_replica()
            producer.activate(images[1], asset_id="lost-by-the-replica", again=True).wait(LIMIT_S)
            with connect_redis(behind_sentinels) as client:
                last = client.xrevrange(journal, count=1)[0][0]

            def noted() -> bool:
                return last in store.get(Bucket.COLLECTIONS, "starter/epoch.json", 10_000).decode()

            wait_for(noted, "how far the journal was is not noted")
            redis_set.promote(replica)
        with connect_redis(behind_sentinels) as client:
            assert client.exists(journal)
            wait_for(lambda: "lost-by-the-replica" in registered(client.xrange(journal)), "it stays lost")
            assert last not in [entry for entry, _ in client.xrange(journal)]  # it is another entry
        wait_for(lambda: "were registered" in worker.log.read_text(), "nothing says what was restored")
        assert worker.alive()
    finally:
        worker.kill()


def registered(entries: list[tuple[str, dict[str, str]]]) -> set[str]:
    """The assets of a journal's entries."""
    return {fields["asset"] for _, fields in entries if "asset" in fields}


@pytest.mark.parametrize("which", ["sentinel", "replica", "unknown name", "no sentinel", "wrong password"])
def test_an_address_of_something_else_is_refused_with_what_to_write(
    which: str, unharmed_set: SentinelSet, shared_settings: Settings
) -> None:
    sentinel, replica = unharmed_set.sentinels[0], unharmed_set.replica()
    url, error, said = {
        "sentinel": (f"redis://:of-the-sentinels@127.0.0.1:{sentinel}", InvalidSetting, "write it as sentinel://"),
        "replica": (f"redis://:of-the-set@127.0.0.1:{replica}", RedisUnavailable, "read-only replica"),
        "unknown name": (unharmed_set.url.replace("aii-primary", "another"), RedisUnavailable, "working primary"),
        "no sentinel": (
            f"sentinel://:x@127.0.0.1:{replica}/p?sentinel_password=of-the-set",
            InvalidSetting,
            "redis://",
        ),
        "wrong password": (unharmed_set.url.partition("?")[0], RedisUnavailable, "sentinel_password="),
    }[which]
    ledger = Ledger.connect(shared_settings.model_copy(update={"redis_url": SecretStr(url)}))
    with pytest.raises(error, match=said) as caught:
        ledger.check()
    assert "of-the" not in caught.value.message
