"""What a producer promises, held against the real one and against the one that applications test with."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from pydantic import SecretStr

from producer import (
    Activation,
    ActivationJob,
    ActivationOptions,
    ActivationResult,
    AiiError,
    AsyncProducer,
    BadInput,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Finished,
    InvalidRequest,
    JobMissing,
    JobState,
    NotFound,
    Producer,
    Query,
    QueryJob,
    QueryOptions,
    Submitted,
    errors,
)
from producer.testing import FakeProducer
from tasks.connection import connect_redis
from tasks.ledger.keys import job_key
from tasks.names import sha256_hex
from tasks.settings import Settings
from tests.photographs import crops
from tests.waiting import LIMIT_S

Image = Callable[[], bytes]


@pytest.fixture(params=["real", "fake"])
def any_producer(request: pytest.FixtureRequest) -> Iterator[Producer]:
    if request.param == "fake":
        yield FakeProducer()
        return
    request.getfixturevalue("shared_worker")
    with Producer.connect(request.getfixturevalue("settings")) as producer:
        yield producer


@pytest.fixture(params=["real", "fake"])
def held_producer(request: pytest.FixtureRequest) -> Iterator[Producer]:
    """One whose jobs are not done: they are in another database of Redis than the worker's."""
    if request.param == "fake":
        yield FakeProducer(hold=True)
        return
    settings: Settings = request.getfixturevalue("settings")
    elsewhere = settings.redis_url.get_secret_value().rpartition("/")[0] + "/1"
    with Producer.connect(settings.model_copy(update={"redis_url": SecretStr(elsewhere)})) as producer:
        yield producer


def image(seed: int = 0) -> bytes:
    """A photograph that no other test has used, since every job is remembered by its bytes."""
    return crops(seed + 1, 96)[seed] + uuid.uuid4().bytes


def test_an_activation_ends_with_its_result_and_its_file(any_producer: Producer, tmp_path: Path) -> None:
    data = image()
    job = any_producer.activate(data, asset_id="a/1", meta={"k": "v"}, name="a.jpg", options={"steps": 1})
    assert isinstance(job, ActivationJob)
    result = job.wait(LIMIT_S)
    assert (result.job_id, result.asset_id, result.name, result.meta) == (job.job_id, "a/1", "a.jpg", {"k": "v"})
    assert (result.source_sha256, result.options) == (sha256_hex(data), ActivationOptions(steps=1))
    assert job.state() is JobState.DONE
    assert any_producer.result(job.job_id) == result
    any_producer.download_protected(result, tmp_path / "protected.jpg")
    assert sha256_hex((tmp_path / "protected.jpg").read_bytes()) == result.protected_sha256


def test_a_query_finds_what_was_activated(any_producer: Producer) -> None:
    asset_id = uuid.uuid4().hex
    activated = any_producer.activate(image(1), asset_id=asset_id, meta={"own": asset_id}).wait(LIMIT_S)
    options = QueryOptions(top_k=1, where={"own": asset_id})  # others here are crops of the same photograph
    job = any_producer.query(any_producer.protected_image(activated), options=options)
    assert isinstance(job, QueryJob)
    answer = job.wait(LIMIT_S)
    assert [match.asset_id for match in answer.matches] == [activated.asset_id]


def test_the_same_request_is_the_same_job(any_producer: Producer) -> None:
    data = image()
    first = any_producer.activate(data)
    first.wait(LIMIT_S)
    same = any_producer.activate(data)
    assert (same, same.new) == (ActivationJob(first.job_id, False, None, any_producer), False)
    other = any_producer.activate(data, again=True)
    assert (other.new, other.job_id != first.job_id) == (True, True)
    assert any_producer.query(data).job_id != any_producer.query(data).job_id


def test_a_key_names_one_job_and_is_refused_for_another_request(any_producer: Producer) -> None:
    data, key = image(), uuid.uuid4().hex
    first = any_producer.activate(data, idempotency_key=key)
    assert any_producer.activate(data, idempotency_key=key, name="b.jpg").job_id == first.job_id
    with pytest.raises(Conflict, match="idempotency key"):
        any_producer.activate(data, idempotency_key=key, asset_id="other")
    first.wait(LIMIT_S)
    with pytest.raises(Conflict, match="idempotency key"):
        any_producer.activate(image(1), idempotency_key=key)
    assert any_producer.activate(data, idempotency_key=key).wait(LIMIT_S).source_sha256 == sha256_hex(data)


@pytest.mark.usefixtures("shared_worker")
def test_a_key_is_refused_for_another_request_when_the_ledger_has_forgotten_its_job(
    producer: Producer, settings: Settings
) -> None:
    data, key = image(), uuid.uuid4().hex
    job, query = producer.activate(data, idempotency_key=key), producer.query(data, idempotency_key=key)
    job.wait(LIMIT_S)
    query.wait(LIMIT_S)
    with connect_redis(settings) as client:
        client.delete(job_key(job.job_id), job_key(query.job_id))
    for other in ({"asset_id": "other"}, {"meta": {"k": "v"}}, {"options": {"steps": 1}}):
        with pytest.raises(Conflict, match="idempotency key"):
            producer.activate(data, idempotency_key=key, **other)  # type: ignore[arg-type]
    for ask in (producer.activate, producer.query):
        with pytest.raises(Conflict, match="idempotency key"):
            ask(image(1), idempotency_key=key)
    assert producer.activate(data, idempotency_key=key).wait(LIMIT_S).job_id == job.job_id
    assert producer.query(data, idempotency_key=key).job_id == query.job_id


@pytest.mark.usefixtures("shared_worker")
def test_a_key_is_refused_for_another_request_when_its_job_failed(producer: Producer) -> None:
    key = uuid.uuid4().hex
    failed = producer.activate(b"no image", idempotency_key=key)
    with pytest.raises(errors.UnsupportedFormat):
        failed.wait(LIMIT_S)
    with pytest.raises(Conflict, match="idempotency key"):
        producer.activate(image(), idempotency_key=key)
    assert producer.activate(b"no image", idempotency_key=key).new


def test_a_job_is_found_by_its_id(any_producer: Producer) -> None:
    job, query = any_producer.activate(image(), asset_id="found"), any_producer.query(image())
    found = any_producer.job(job.job_id)
    assert isinstance(found, ActivationJob)
    assert found.request.asset_id == "found"
    assert found.wait(LIMIT_S) == job.wait(LIMIT_S)
    assert isinstance(any_producer.job(query.job_id), QueryJob)
    for unknown in (uuid.uuid4().hex, "", "../x"):
        with pytest.raises(JobMissing):
            any_producer.job(unknown)


def test_a_failed_job_raises_the_error_that_it_names(any_producer: Producer) -> None:
    job = any_producer.activate(b"no image at all " + uuid.uuid4().bytes)
    with pytest.raises(errors.UnsupportedFormat):
        job.wait(LIMIT_S)
    assert job.state() is JobState.FAILED
    asset_id = uuid.uuid4().hex
    any_producer.activate(image(), asset_id=asset_id).wait(LIMIT_S)
    with pytest.raises(Conflict, match="asset id"):
        any_producer.activate(image(), asset_id=asset_id).wait(LIMIT_S)
    assert any_producer.activate(image(), asset_id=asset_id, replace=True).wait(LIMIT_S).asset_id == asset_id


def test_an_image_may_come_in_any_form(any_producer: Producer, tmp_path: Path) -> None:
    data = image()
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    jobs = [any_producer.activate(form) for form in (data, bytearray(data), memoryview(data), io.BytesIO(data))]
    with path.open("rb") as file:
        named = [any_producer.activate(form) for form in (path, str(path), file)]
    assert {job.job_id for job in [*jobs, *named]} == {jobs[0].job_id}
    assert {job.request.name for job in named} == {"photo.jpg"}


def test_what_cannot_be_used_raises_our_errors_before_anything_is_submitted(
    any_producer: Producer, tmp_path: Path
) -> None:
    wrong: list[tuple[Callable[[], object], type[AiiError]]] = [
        (lambda: any_producer.activate(b""), errors.EmptyImage),
        (lambda: any_producer.activate(tmp_path / "missing.jpg"), NotFound),
        (lambda: any_producer.activate(5), InvalidRequest),  # type: ignore[arg-type]
        (lambda: any_producer.activate(io.StringIO("text")), InvalidRequest),  # type: ignore[arg-type]
        (lambda: any_producer.activate(image(), options={"steps": 0}), InvalidRequest),
        (lambda: any_producer.activate(image(), options={"stepz": 1}), InvalidRequest),
        (lambda: ActivationOptions(steps=0), InvalidRequest),
        (lambda: QueryOptions(top_k="many"), InvalidRequest),  # type: ignore[arg-type]
        (lambda: any_producer.activate(image(), asset_id=""), errors.InvalidAssetId),
        (lambda: any_producer.activate(image(), collection="A/b"), errors.InvalidCollectionName),
        (lambda: any_producer.activate(image(), meta={"a b": "c"}), InvalidRequest),
        (lambda: any_producer.activate("s3://inbox"), BadInput),
        (lambda: any_producer.activate(image(), idempotency_key="k" * 256), InvalidRequest),
    ]
    for call, kind in wrong:
        with pytest.raises(kind):
            call()


def test_many_images_are_read_ahead_by_a_window_only(any_producer: Producer) -> None:
    taken = 0

    def images() -> Iterator[Activation | Query | bytes]:
        nonlocal taken
        for n in range(12):
            taken += 1
            yield b"" if n == 3 else Query(b"\xff\xd8\xff" + bytes([n])) if n % 2 else image()

    submitted: list[Submitted] = []
    for one in any_producer.submit_many(images(), window=4):
        submitted.append(one)
        assert taken <= len(submitted) + 4
    assert [isinstance(one.error, errors.EmptyImage) for one in submitted] == [n == 3 for n in range(12)]
    assert [type(one.job) for one in submitted[:3]] == [ActivationJob, QueryJob, ActivationJob]


def test_many_images_come_back_as_they_end_with_few_jobs_open(any_producer: Producer) -> None:
    taken = 0

    def images() -> Iterator[Activation]:
        nonlocal taken
        for n in range(9):
            taken += 1
            yield Activation(b"" if n == 4 else b"no image" + uuid.uuid4().bytes if n == 5 else image(), name=str(n))

    finished: list[Finished] = []
    for one in any_producer.run_many(images(), window=4):
        finished.append(one)
        assert taken <= len(finished) + 4
    ends = {one.wanted.name: one for one in finished if isinstance(one.wanted, Activation)}
    assert sorted(ends) == [str(n) for n in range(9)]
    assert isinstance(ends["4"].error, errors.EmptyImage)
    assert isinstance(ends["5"].error, errors.UnsupportedFormat)
    assert all(isinstance(ends[str(n)].result, ActivationResult) for n in (0, 1, 2, 3, 6, 7, 8))


def test_a_window_that_holds_nothing_is_refused(any_producer: Producer) -> None:
    with pytest.raises(InvalidRequest):
        list(any_producer.submit_many([b"x"], window=0))


def test_a_job_that_is_not_done_can_be_waited_for_in_vain_and_cancelled(held_producer: Producer) -> None:
    job = held_producer.activate(image())
    assert job.state() is JobState.QUEUED
    with pytest.raises(DeadlineExceeded):
        job.wait(0)
    assert job.cancel() is JobState.QUEUED
    assert job.state() is JobState.CANCELLED
    with pytest.raises(Cancelled):
        job.wait(10)
    with pytest.raises(Conflict):
        held_producer.cancel(job.job_id)
    with pytest.raises(JobMissing):
        held_producer.cancel(uuid.uuid4().hex)


def test_the_asynchronous_producer_is_the_same_one(any_producer: Producer) -> None:
    async def use() -> None:
        producer = AsyncProducer(any_producer)
        await producer.check()
        own = uuid.uuid4().hex
        jobs = [await producer.activate(image(n), asset_id=f"{n}-{own}", meta={"own": own}) for n in range(5)]
        results = await asyncio.gather(*(job.wait(LIMIT_S) for job in jobs))
        assert [result.job_id for result in results] == [job.job_id for job in jobs]
        assert await jobs[0].state() is JobState.DONE
        protected = await producer.protected_image(results[0])
        answer = await (await producer.query(protected, options={"where": {"own": own}})).wait(LIMIT_S)
        assert results[0].asset_id in [match.asset_id for match in answer.matches]
        again = await (await producer.job(jobs[1].job_id)).wait(LIMIT_S)
        assert again == results[1]
        with pytest.raises(errors.UnsupportedFormat):
            await (await producer.activate(b"no image" + uuid.uuid4().bytes)).wait(LIMIT_S)

    asyncio.run(use())


def test_the_asynchronous_producer_does_any_number(any_producer: Producer) -> None:
    async def use() -> None:
        producer = AsyncProducer(any_producer)
        own = uuid.uuid4().hex
        wanted = [Activation(image(n), asset_id=f"{n}-{own}", meta={"own": own}) for n in range(6)]
        submitted = [one async for one in producer.submit_many(wanted, window=2)]
        assert [one.wanted for one in submitted] == wanted
        ended = [one async for one in producer.run_many([*wanted, b""], window=4)]
        assert {one.result.asset_id for one in ended if isinstance(one.result, ActivationResult)} == {
            one.asset_id for one in wanted
        }
        assert [one.error.code for one in ended if one.error] == ["empty"]

    asyncio.run(use())


@pytest.mark.usefixtures("shared_worker")
def test_the_asynchronous_producer_asks_everything(producer: Producer) -> None:
    async def use() -> None:
        asynchronous, asset_id = AsyncProducer(producer), uuid.uuid4().hex
        data = image(41)  # a picture of no other test's asset, which the query would find instead
        await (await asynchronous.activate(data, asset_id=asset_id)).wait(LIMIT_S)
        answer = await (await asynchronous.query(data)).wait(LIMIT_S)
        opinion = await (await asynchronous.feedback(answer, "confirm", asset_id)).wait(LIMIT_S)
        told = await (await asynchronous.explain(data, asset_id=asset_id)).wait(LIMIT_S)
        assert (opinion.asset_id, told.asset_id) == (asset_id, asset_id)
        found = await (await asynchronous.query_vectors([[1 / 16] * 256])).wait(LIMIT_S)
        assert len(found.answers) == 1

    asyncio.run(use())


def test_many_may_be_left_before_their_end(held_producer: Producer) -> None:
    read = 0

    def images() -> Iterator[bytes]:
        nonlocal read
        for read in range(1_000):
            yield image(read)

    async def use() -> None:
        async with aclosing(AsyncProducer(held_producer).submit_many(images(), window=3)) as jobs:
            assert (await anext(jobs)).job

    asyncio.run(use())
    assert read < 10


def test_waiting_asynchronously_ends_with_its_time(held_producer: Producer) -> None:
    async def use() -> None:
        producer = AsyncProducer(held_producer)
        job = await producer.activate(image())
        with pytest.raises(DeadlineExceeded):
            await job.wait(0.05)
        waiting = asyncio.create_task(job.wait(LIMIT_S))
        assert await job.cancel() is JobState.QUEUED
        with pytest.raises(Cancelled):
            await waiting

    asyncio.run(use())


# ── what only the one for tests has ──────────────────────────────────────────────────────────────────────────────────


def test_a_held_job_is_done_when_the_test_says_so_and_fails_as_it_says() -> None:
    producer = FakeProducer(hold=True)
    jobs = [producer.activate(image()) for _ in range(2)]
    producer.fail_next(errors.TruncatedImage("half a file"))
    producer.run()
    with pytest.raises(errors.TruncatedImage):
        jobs[0].wait()
    assert jobs[1].wait().status == "activated"


def test_an_object_in_s3_is_what_the_test_put_there() -> None:
    producer = FakeProducer()
    data = image()
    producer.put_object("inbox", "a/b.jpg", data)
    assert producer.activate("s3://inbox/a/b.jpg").wait().source_sha256 == sha256_hex(data)
    with pytest.raises(NotFound):
        producer.activate("s3://inbox/c.jpg").wait()


def test_the_settings_of_the_machine_do_not_matter_to_it(settings: Settings) -> None:
    assert FakeProducer(default_collection="mine").activate(image()).wait().collection == "mine" != settings.extractor
