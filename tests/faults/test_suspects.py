"""An image that ends or stalls its worker costs itself and nothing else."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from producer import Job, Producer
from tasks.connection import connect_redis
from tasks.ledger.keys import job_key
from tasks.ledger.states import JobState
from tasks.names import sha256_hex
from tasks.results import FailureResult
from tasks.settings import Settings
from tests.link import Link
from tests.odd_decoder import crashing, hanging, install
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for

NEIGHBOURS = 30
REFUSALS = (("403 Forbidden", "AccessDenied"), ("400 Bad Request", "InvalidRequest"))


@contextmanager
def supervised(start: Callable[[], WorkerProcess]) -> Iterator[list[WorkerProcess]]:
    """One worker after the other, as a supervisor starts them."""
    workers, stop = [start()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            if not workers[-1].alive():
                workers[-1].kill()  # closes its log
                workers.append(start())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield workers
    finally:
        stop.set()
        thread.join()


def activate(producer: Producer, image: bytes) -> Job:
    """A job that was not done before, by another test with the same photographs."""
    return producer.activate(image, asset_id=f"a-{uuid.uuid4().hex}")


def states(producer: Producer, jobs: list[Job]) -> list[JobState | None]:
    return producer.ledger.states([job.job_id for job in jobs])


def failure(producer: Producer, job: Job) -> FailureResult:
    result = producer.result(job.job_id)
    assert isinstance(result, FailureResult)
    return result


def test_the_neighbours_of_an_image_that_ends_its_worker_all_end_well(
    start_worker: Callable[..., WorkerProcess], producer: Producer, tmp_path: Path
) -> None:
    images = crops(NEIGHBOURS)
    half = NEIGHBOURS // 2
    good = [activate(producer, image) for image in images[:half]]
    poison = activate(producer, crashing())
    good += [activate(producer, image) for image in images[half:]]
    with supervised(lambda: start_worker(prepare=partial(install, tmp_path / "hook"))) as workers:
        # Workers start anew, and suspects run one after the other: on busy cores that takes minutes.
        done = [JobState.DONE] * NEIGHBOURS
        wait_for(lambda: states(producer, good) == done, "a neighbour did not end well", 3 * LIMIT_S)
        wait_for(lambda: states(producer, [poison]) == [JobState.FAILED], "it did not end")
        assert failure(producer, poison).code == "poison"
        assert len(workers) == 2  # the second one decoded it in a process of its own


def test_images_that_are_never_decoded_fail_by_time_and_stop_no_lane_for_good(
    start_worker: Callable[..., WorkerProcess], producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    given = {"AII_STAGE_TIMEOUT_S": "8", "AII_ACTIVATE_THREADS": "4"}
    hung = [activate(producer, hanging(seed)) for seed in range(6)]
    asked = producer.query(hanging(9))
    good = [activate(producer, image) for image in crops(6)]
    with supervised(lambda: start_worker(prepare=partial(install, tmp_path / "hook"), **given)) as workers:
        wait_for(lambda: states(producer, good) == [JobState.DONE] * 6, "the lane stopped for good")
        wait_for(lambda: states(producer, [*hung, asked]) == [JobState.FAILED] * 7, "one did not end")
        assert {failure(producer, job).code for job in [*hung, asked]} == {"deadline_exceeded"}
        wait_for(workers[-1].alive, "no worker is left")
    with connect_redis(settings) as client:
        assert client.zcard("aii:leases") == 0


def test_objects_that_s3_refuses_stop_no_lane_and_fail_with_their_code(
    start_worker: Callable[..., WorkerProcess], producer: Producer, settings: Settings
) -> None:
    images = crops(9)
    refused = [activate(producer, image) for image in images[:6]]
    answers = dict(zip((f"originals/{sha256_hex(image)}" for image in images[:6]), REFUSALS * 3, strict=True))
    with closing(Link(settings.s3_endpoint)) as link, link.refusing(answers):
        worker = start_worker(AII_S3_ENDPOINT=link.address, AII_ACTIVATE_THREADS="2")
        good = [activate(producer, image) for image in images[6:]]
        wait_for(lambda: states(producer, good) == [JobState.DONE] * 3, "the lane stopped")
        wait_for(lambda: states(producer, refused) == [JobState.FAILED] * 6, "one is tried for ever")
        assert {failure(producer, job).code for job in refused} == {"storage_refused"}
        assert worker.alive()


def test_while_s3_is_away_jobs_are_put_off_and_all_are_done_once_it_is_back(
    start_worker: Callable[..., WorkerProcess], producer: Producer, settings: Settings
) -> None:
    with closing(Link(settings.s3_endpoint)) as link, connect_redis(settings) as client:
        worker = start_worker(AII_S3_ENDPOINT=link.address, AII_ACTIVATE_THREADS="2")
        with link.down():
            jobs = [activate(producer, image) for image in crops(5)]
            keys = [job_key(job.job_id) for job in jobs]
            wait_for(lambda: all(client.hget(key, "postponed") for key in keys), "the first ones keep the threads")
        wait_for(lambda: states(producer, jobs) == [JobState.DONE] * 5, "one was forgotten")
        assert worker.alive()
