"""The main job through real processes: producer, Redis, S3, worker."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from producer import Producer
from tasks.connection import connect_redis
from tasks.errors import AiiError, UnsupportedFormat
from tasks.messages import ActivationOptions
from tasks.names import sha256_hex
from tasks.results import ActivationResult, QueryResult
from tasks.settings import Settings
from tests import images_zoo
from tests.photographs import photographs, pixels
from tests.stack import WorkerProcess, aii
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.fixture
def worker(shared_worker: WorkerProcess) -> WorkerProcess:
    return shared_worker


def activate(producer: Producer, data: bytes, **options: object) -> ActivationResult:
    result = producer.activate(data, **options).wait(LIMIT_S)  # type: ignore[arg-type]
    assert isinstance(result, ActivationResult)
    return result


def query(producer: Producer, data: bytes) -> QueryResult:
    result = producer.query(data).wait(LIMIT_S)
    assert isinstance(result, QueryResult)
    return result


def test_an_activated_photograph_is_found_by_the_very_next_query(worker: WorkerProcess, producer: Producer) -> None:
    result = activate(producer, photographs()["astronaut.png"], asset_id="astronaut")
    assert result.protected_key == f"starter/assets/astronaut/{result.protected_sha256}.png"
    protected = producer.protected_image(result)
    answer = query(producer, protected)
    assert answer.matches[0].asset_id == "astronaut"
    assert answer.verdict == "match"


def test_the_protected_image_is_close_to_the_original_and_on_its_code(
    worker: WorkerProcess, producer: Producer
) -> None:
    result = activate(producer, photographs()["chelsea.png"])
    assert result.status == "activated"
    assert result.verification.verified
    assert result.verification.distance_after < result.verification.distance_before
    assert result.quality.psnr_db is not None
    assert result.quality.psnr_db > 35
    published = np.asarray(Image.open(io.BytesIO(producer.protected_image(result))))
    assert published.shape == pixels("chelsea.png").shape
    assert np.abs(published.astype(int) - pixels("chelsea.png")).max() == result.quality.linf


def test_the_document_carries_what_an_audit_needs(worker: WorkerProcess, producer: Producer) -> None:
    data = photographs()["coffee.png"]
    result = activate(producer, data)
    assert result.asset_id == result.source_sha256 == sha256_hex(data)
    assert sha256_hex(producer.protected_image(result)) == result.protected_sha256
    stages = ("fetch", "decode", "prepare", "device", "optimise", "compose", "encode", "verify", "upload", "journal")
    assert set(stages) <= set(result.provenance.timings_ms)
    assert {"torch", "pillow", "celery"} <= set(result.provenance.versions)


def test_the_same_request_is_one_job_and_other_options_are_another(worker: WorkerProcess, producer: Producer) -> None:
    data = photographs()["rocket.jpg"]
    first, again = producer.activate(data), producer.activate(data)
    fast = producer.activate(data, options=ActivationOptions(steps=1))
    assert (first.new, again.new, fast.new) == (True, False, True)
    assert first.job_id == again.job_id != fast.job_id
    assert first.wait(LIMIT_S) == again.wait(LIMIT_S)
    assert isinstance(fast.wait(LIMIT_S), ActivationResult)


def test_bad_input_ends_in_its_own_code_and_neighbours_are_unharmed(worker: WorkerProcess, producer: Producer) -> None:
    hostile, readable = images_zoo.hostile(), images_zoo.readable()
    for name in ("too many bytes", "png just over the limit"):  # of the small limits of the unit tests
        del hostile[name]
    jobs = {}
    for name, sample in hostile.items():
        try:
            jobs[name] = producer.activate(sample.data)
        except AiiError as error:
            assert error.code == sample.code, name  # noqa: PT017  # a refusal at the door is as good as one inside
    good = {name: producer.activate(sample.data) for name, sample in readable.items()}
    assert jobs
    for name, job in jobs.items():
        with pytest.raises(AiiError) as caught:
            job.wait(LIMIT_S)
        assert caught.value.code == hostile[name].code, name
    with pytest.raises(UnsupportedFormat, match="Send a CMYK JPEG"):  # it can be read, and asked about
        good.pop("tiff cmyk").wait(LIMIT_S)
    for job in good.values():
        assert isinstance(job.wait(LIMIT_S), ActivationResult)
    assert worker.alive()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_an_upright_protected_image(
    worker: WorkerProcess, producer: Producer, orientation: int
) -> None:
    result = activate(producer, images_zoo.oriented("JPEG")[orientation])
    published = Image.open(io.BytesIO(producer.protected_image(result)))
    assert published.getexif().get(0x0112, 1) == 1
    assert published.size == images_zoo.photo().shape[1::-1]


def test_a_missing_object_an_unknown_collection_and_a_hostile_name_have_codes(
    worker: WorkerProcess, producer: Producer
) -> None:
    data = photographs()["rocket.jpg"]
    with pytest.raises(AiiError) as caught:
        producer.activate(data, asset_id="a\nb")
    assert caught.value.code == "invalid_asset_id"
    with pytest.raises(AiiError) as caught:
        producer.activate(data, collection="nowhere").wait(LIMIT_S)
    assert caught.value.code == "collection_missing"


def test_a_hostile_message_that_bypasses_the_producer_ends_in_a_code(worker: WorkerProcess, producer: Producer) -> None:
    payload = {
        "task": "aii.activate",
        "collection": "starter",
        "asset_id": "a\nb",
        "source": {"sha256": "0" * 64, "size": 1},
    }
    job_id = "0123456789abcdef" * 2
    producer._sender.send(job_id, "aii.activate", "activate", payload)

    def failed() -> str | None:
        try:
            return producer.ledger.get(job_id).error_code
        except AiiError:
            return None

    assert wait_for(failed, "the message was not answered") == "invalid_asset_id"
    assert worker.alive()


def test_an_activation_done_before_redis_was_emptied_is_registered_again(
    worker: WorkerProcess, producer: Producer, settings: Settings
) -> None:
    first = activate(producer, photographs()["hubble_deep_field.jpg"])
    with connect_redis(settings) as client:
        client.flushdb()
    again = producer.activate(photographs()["hubble_deep_field.jpg"])
    assert again.new
    assert again.wait(LIMIT_S) == first
    assert query(producer, producer.protected_image(first)).matches[0].asset_id == first.asset_id


def with_workers(environment: dict[str, str]) -> dict[str, Any]:
    """What `aii status` shows, once it shows a worker; Redis, which was emptied, hears of it every few seconds."""
    status: dict[str, Any] = json.loads(aii(environment, "status", "--json").stdout)
    return status if status["workers"] else {}


def test_the_command_line_activates_a_folder_and_finds_its_images(
    worker: WorkerProcess, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("coffee.png", "motorcycle_left.png"):
        (folder / name).write_bytes(photographs()[name])
    (folder / "broken.jpg").write_bytes(photographs()["rocket.jpg"][:5000])
    run = aii(stack_environment, "activate", str(folder), "--out", str(out), "--json")
    records = {Path(r["image"]).name: r for r in map(json.loads, run.stdout.splitlines())}
    assert run.returncode == 1, run.stderr + run.stdout
    assert records["broken.jpg"]["code"] == "truncated"
    assert records["coffee.png"]["status"] == "activated"
    assert {"coffee.png", "motorcycle_left.png"} == {p.name for p in out.iterdir() if p.stem != "manifest"}
    found = aii(stack_environment, "query", "-", "--json", stdin=out / "motorcycle_left.png")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["matches"][0]["asset_id"] == records["motorcycle_left.png"]["asset_id"]
    status = wait_for(lambda: with_workers(stack_environment), "the worker does not renew its presence")
    assert status["workers"][0]["pid"] == worker.pid
    assert status["failed_jobs"][0]["error_code"] == "truncated"


def test_a_worker_that_is_told_to_stop_finishes_and_ends_well(
    start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    worker = start_worker()
    jobs = [producer.activate(data) for data in photographs().values()]
    assert worker.stop() == 0
    states = {str(state) for state in producer.ledger.states([job.job_id for job in jobs])}
    assert states <= {"done", "queued"}
