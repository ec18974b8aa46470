"""An asset that is activated more than once: what is current, what is superseded, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from producer import Job, Producer
from tasks.connection import connect_redis
from tasks.errors import AiiError, AssetConflict, Conflict, DeadlineExceeded, ObjectMissing
from tasks.messages import ActivationOptions
from tasks.monitoring.observer import read_overview
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.photographs import crops
from tests.stack import WorkerProcess, aii_here
from tests.truth import disagreements
from tests.waiting import LIMIT_S, wait_for
from workers.index.collection.journal import Journal

PAIRS = 40
IMAGES = crops(4 * PAIRS)[::2]  # of photographs that one step is enough for: none is published unchanged
UNHURRIED = "120"  # no worker dies here: on a machine that is busy, none must be taken for dead
ONE, FOUR = ActivationOptions(steps=1), ActivationOptions(steps=4, learning_rate=1.0)


@pytest.fixture
def two_workers(start_worker: Callable[..., WorkerProcess]) -> list[WorkerProcess]:
    return [start_worker(AII_LEASE_S=UNHURRIED), start_worker(AII_LEASE_S=UNHURRIED)]


def activated(producer: Producer, *args: object, **kwargs: object) -> tuple[Job, ActivationResult]:
    job = producer.activate(*args, **kwargs)  # type: ignore[arg-type]
    result = job.wait(LIMIT_S)
    assert isinstance(result, ActivationResult)
    return job, result


def at_once(submit: Sequence[Callable[[], Job]]) -> list[Job]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda call: call(), submit))


def ended(job: Job) -> str:
    try:
        return job.wait(LIMIT_S).status
    except AiiError as error:
        return error.code


def test_of_two_images_under_one_asset_id_one_is_refused_and_nothing_disagrees(
    two_workers: list[WorkerProcess], producer: Producer, settings: Settings
) -> None:
    jobs = at_once(
        [
            lambda i=i: producer.activate(IMAGES[i], asset_id=f"pair-{i // 2}", options=ONE)  # type: ignore[misc]
            for i in range(2 * PAIRS)
        ]
    )
    ends = [ended(job) for job in jobs]
    for pair in range(PAIRS):
        assert sorted(ends[2 * pair : 2 * pair + 2]) == ["activated", Conflict.code]
    assert disagreements(settings, "starter", [job.job_id for job in jobs]) == []


def test_of_one_image_with_two_options_the_later_supersedes_the_earlier_and_nothing_disagrees(
    two_workers: list[WorkerProcess], producer: Producer, settings: Settings
) -> None:
    jobs = at_once(
        [
            lambda i=i: producer.activate(IMAGES[i // 2], asset_id=f"asset-{i // 2}", options=(ONE, FOUR)[i % 2])  # type: ignore[misc]
            for i in range(2 * PAIRS)
        ]
    )
    assert {ended(job) for job in jobs} <= {"activated", "passive"}
    assert disagreements(settings, "starter", [job.job_id for job in jobs]) == []
    for pair in range(PAIRS):
        superseded = [producer.ledger.get(job.job_id).superseded_by for job in jobs[2 * pair : 2 * pair + 2]]
        assert sum(by is not None for by in superseded) == 1


def test_options_said_in_turn_are_done_in_turn_and_the_last_ones_are_current(
    shared_worker: WorkerProcess, producer: Producer, settings: Settings, store: ObjectStore
) -> None:
    for round_ in range(3):
        asset = f"turns-{round_}"
        first, one = activated(producer, IMAGES[0], asset_id=asset, options=ONE)
        second, _ = activated(producer, IMAGES[0], asset_id=asset, options=FOUR)
        assert producer.ledger.get(first.job_id).superseded_by == second.job_id
        assert producer.protected_image(one)  # stays readable
        third, again = activated(producer, IMAGES[0], asset_id=asset, options=ONE)
        assert (third.job_id, third.new) == (first.job_id, True)
        assert again.journal_entry != one.journal_entry
        assert producer.ledger.get(first.job_id).superseded_by is None
        assert producer.ledger.get(second.job_id).superseded_by == first.job_id
        fourth, same = activated(producer, IMAGES[0], asset_id=asset, options=ONE)
        assert (fourth.new, same) == (False, again)
        assert disagreements(settings, "starter", [first.job_id, second.job_id]) == []


def test_another_image_takes_an_assets_place_only_when_that_is_said(
    shared_worker: WorkerProcess, producer: Producer, settings: Settings
) -> None:
    jpeg, first = activated(producer, IMAGES[2], asset_id="taken", options=ONE)
    refused = producer.activate(IMAGES[3], asset_id="taken", options=ONE)
    with pytest.raises(Conflict, match=first.source_sha256[:16]):
        refused.wait(LIMIT_S)
    assert producer.ledger.get(jpeg.job_id).current
    replaced, second = activated(producer, IMAGES[3], asset_id="taken", options=ONE, replace=True)
    assert (replaced.job_id, replaced.new) == (refused.job_id, True)
    assert producer.ledger.get(jpeg.job_id).superseded_by == replaced.job_id
    wait_for(lambda: read_overview(settings).outdated.get(jpeg.job_id) == f"superseded by {replaced.job_id}")
    assert second.protected_key != first.protected_key
    assert disagreements(settings, "starter", [jpeg.job_id, replaced.job_id]) == []
    with connect_redis(settings) as client:
        live = Journal(client, "starter").live("taken").state
    assert live is not None
    assert live.job_id == replaced.job_id
    assert issubclass(AssetConflict, Conflict)


def test_an_archives_asset_id_and_the_files_name_are_kept_and_found(
    shared_worker: WorkerProcess, producer: Producer
) -> None:
    asset_id = "urn:newsml:afp.com:20260101:ä/img 1.jpg"
    _, result = activated(producer, IMAGES[4], asset_id=asset_id, name="Hafen am Abend.jpg", meta={"kind": "photo"})
    assert (result.asset_id, result.name) == (asset_id, "Hafen am Abend.jpg")
    answer = producer.query(producer.protected_image(result)).wait(LIMIT_S)
    match = answer.matches[0]  # type: ignore[union-attr]
    assert (match.asset_id, match.name, match.meta) == (asset_id, "Hafen am Abend.jpg", {"kind": "photo"})


def test_a_purge_deletes_what_is_not_current_and_nothing_else(
    shared_worker: WorkerProcess, producer: Producer, settings: Settings, store: ObjectStore,
    stack_environment: dict[str, str],
) -> None:  # fmt: skip
    first, one = activated(producer, IMAGES[5], asset_id="purged", options=ONE)
    second, two = activated(producer, IMAGES[5], asset_id="purged", options=FOUR)
    gone, removed = activated(producer, IMAGES[6], asset_id="purged-too", options=ONE)
    assert aii_here(stack_environment, "index", "remove", "starter", "purged-too").returncode == 0
    said = aii_here(stack_environment, "index", "purge", "starter", "--dry-run").stdout
    assert f"superseded  purged  job {first.job_id}" in said
    assert f"removed     purged-too  job {gone.job_id}" in said
    assert producer.protected_image(one)
    done = aii_here(stack_environment, "index", "purge", "starter", "--yes")
    assert (done.returncode, "are purged" in done.stdout) == (0, True), done.stderr
    for result in (one, removed):
        assert not store.exists(Bucket.PROTECTED, result.protected_key)
        with pytest.raises(ObjectMissing):
            producer.result(result.job_id)
    assert disagreements(settings, "starter", [second.job_id]) == []
    assert producer.protected_image(two)
    again, three = activated(producer, IMAGES[5], asset_id="purged", options=ONE)
    assert (again.job_id, again.new) == (first.job_id, True)
    assert producer.protected_image(three)


def test_a_file_that_is_being_purged_is_stored_again_by_the_activation_that_wants_it(
    shared_worker: WorkerProcess, producer: Producer, settings: Settings, store: ObjectStore
) -> None:
    first, one = activated(producer, IMAGES[7], asset_id="wanted", options=ONE)
    activated(producer, IMAGES[7], asset_id="wanted", options=FOUR)
    with connect_redis(settings) as client:
        journal = Journal(client, "starter")
        assert journal.begin_purge("wanted", [one.protected_key]) == [one.protected_key]
        again = producer.activate(IMAGES[7], asset_id="wanted", options=ONE)
        with pytest.raises(DeadlineExceeded):
            again.wait(1)
        store.delete(Bucket.PROTECTED, one.protected_key)
        journal.end_purge("wanted")
    result = again.wait(LIMIT_S)
    assert isinstance(result, ActivationResult)
    assert result.protected_key == one.protected_key
    assert producer.protected_image(result)
    assert disagreements(settings, "starter", [first.job_id]) == []
