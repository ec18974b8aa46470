"""A worker that is stopped right before an effect and goes on after its lease ran out changes nothing."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from contextlib import closing

import pytest

from producer import Producer
from tasks.connection import connect_redis, redis_address
from tasks.documents import read_document
from tasks.ledger.commit_scripts import COMMIT
from tasks.ledger.keys import LEASES
from tasks.ledger.states import JobState
from tasks.messages import ActivationOptions
from tasks.names import journal_stream
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.link import Link
from tests.photographs import crops
from tests.stack import WorkerProcess, aii_here
from tests.truth import disagreements
from tests.waiting import LIMIT_S

IMAGES = crops(4)
OPTIONS = ActivationOptions(steps=1)
# What a worker sends right before each effect, and to which service.
BEFORE = {
    "the file": ("s3", b"PUT /protected/"),
    "the journal": ("redis", hashlib.sha1(COMMIT.encode()).hexdigest().encode()),
    "the document": ("s3", b"PUT /results/"),
}
SLOW = {"AII_ACTIVATE_THREADS": "1"}
QUICK = {"AII_LEASE_S": "120"}  # not stopped: on a machine that is busy, it must not be taken for dead


@pytest.mark.parametrize("effect", BEFORE)
@pytest.mark.parametrize("meanwhile", ["removed", "superseded"])
def test_a_worker_stopped_before_an_effect_changes_nothing_when_it_goes_on_after_its_lease(
    effect: str, meanwhile: str, start_worker: Callable[..., WorkerProcess], producer: Producer, settings: Settings,
    store: ObjectStore, stack_environment: dict[str, str],
) -> None:  # fmt: skip
    service, mark = BEFORE[effect]
    asset, stopped = f"stopped-{effect.split()[1]}-{meanwhile}", []

    def stop() -> None:
        os.kill(stopped[0], signal.SIGSTOP)

    target = settings.s3_endpoint if service == "s3" else redis_address(settings)
    with closing(Link(target)) as link, link.holding(mark, stop) as held:
        slow = start_worker(**SLOW, **through(link.address, service, settings))
        stopped.append(slow.pid)
        job = producer.activate(IMAGES[0], asset_id=asset, options=OPTIONS)
        assert held.reached.wait(LIMIT_S)
        with connect_redis(settings) as client:
            client.zadd(LEASES, {job.job_id: 0}, xx=True)  # as if the time of its lease had passed
        quick = start_worker(**QUICK)
        first = job.wait(LIMIT_S)
        assert isinstance(first, ActivationResult)
        jobs = [job.job_id]
        if meanwhile == "removed":
            assert aii_here(stack_environment, "index", "remove", "starter", asset).returncode == 0
        else:
            other = producer.activate(IMAGES[1], asset_id=asset, options=OPTIONS, replace=True)
            other.wait(LIMIT_S)
            jobs.append(other.job_id)
        quick.stop()
        before = effects(settings, store, asset, job.job_id)
        os.kill(slow.pid, signal.SIGCONT)
        held.released.set()
        last = producer.activate(
            IMAGES[2], asset_id=f"last-{asset}", options=OPTIONS
        )  # by its only thread: it has left the first job then
        last.wait(LIMIT_S)
    assert effects(settings, store, asset, job.job_id) == before
    assert producer.ledger.get(job.job_id).state is JobState.DONE
    assert disagreements(settings, "starter", [*jobs, last.job_id]) == []


def through(address: str, service: str, settings: Settings) -> dict[str, str]:
    """The settings of a worker that reaches a service by another address."""
    if service == "s3":
        return {"AII_S3_ENDPOINT": address}
    return {"AII_REDIS_URL": settings.redis_url.get_secret_value().replace(redis_address(settings), address)}


def effects(settings: Settings, store: ObjectStore, asset_id: str, job_id: str) -> object:
    """All that was published of an asset."""
    with connect_redis(settings) as client:
        changes = [c for c in client.xrange(journal_stream("starter")) if c[1]["asset"] == asset_id]
    files = sorted(store.list_keys(Bucket.PROTECTED, f"starter/assets/{asset_id}/"))
    records = sorted(store.list_keys(Bucket.COLLECTIONS, f"starter/assets/{asset_id}/"))
    return changes, files, records, read_document(store, job_id)
