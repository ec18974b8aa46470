"""A collection of one's own, built from a folder with one's own extractor, and served by a worker."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models

from producer import Producer
from tasks.connection import connect_redis
from tasks.errors import CollectionMissing
from tasks.messages import QueryOptions
from tasks.settings import Settings
from tests.photographs import photographs
from tests.stack import WorkerProcess, aii, aii_here
from tests.waiting import LIMIT_S, wait_for
from workers.index.maintenance.build import suggested_factory


def test_a_folder_becomes_a_collection_that_a_worker_serves(
    start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str], producer: Producer, images: Path
) -> None:
    torch.manual_seed(0)
    weights = images.parent / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), weights)
    extractor = f"resnet18+gem@{weights}#size=64"
    name = f"own-{uuid.uuid4().hex[:12]}"
    options = ("--extractor", extractor, "--factory", "IVF16,PQ8x4", "--nprobe", "12", "--here")
    arguments = (name, "--images", str(images), *options)
    done = aii(stack_environment, "index", "build", *arguments)
    assert done.returncode == 0, done.stderr
    assert "300 images (1 skipped)" in done.stdout
    assert "broken.jpg" in done.stderr
    told = aii_here(stack_environment, "index", "info", name).stdout
    assert ("IVF16,PQ8x4" in told, "at nprobe 12" in told, "95% interval" in told) == (True, True, True), told

    again = aii_here(stack_environment, "index", "build", *arguments)
    assert again.returncode == 1
    assert "[collection_exists]" in again.stderr

    start_worker(AII_EXTRACTOR=extractor)
    result = producer.activate(photographs()["chelsea.png"], asset_id="cat", collection=name).wait(LIMIT_S)
    everywhere = QueryOptions(nprobe=16, top_k=100)  # which of equal codes comes first depends on the precision
    protected = producer.protected_image(result)  # type: ignore[arg-type]
    answer = producer.query(protected, collection=name, options=everywhere).wait(LIMIT_S)
    assert "cat" in [match.asset_id for match in answer.matches]  # type: ignore[union-attr]
    known = producer.query(images / "017.jpg", collection=name).wait(LIMIT_S)
    assert len(known.matches[0].asset_id) == 64  # type: ignore[union-attr]
    assert known.options.nprobe == 12  # type: ignore[union-attr]


def test_a_collection_that_was_deleted_is_built_and_filled_again(
    start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str], producer: Producer, images: Path
) -> None:
    name, data = f"again-{uuid.uuid4().hex[:12]}", photographs()["chelsea.png"]
    build = ("index", "build", name, "--images", str(images), "--factory", "IVF4,PQ8x4")
    start_worker()
    for _ in range(3):  # extracted, each time, by jobs of the same images, whose features went with the one before
        built = aii(stack_environment, *build)
        assert (built.returncode, "300 images (1 skipped)" in built.stdout) == (0, True), built.stderr
        job = producer.activate(data, asset_id="cat", collection=name)
        assert job.new
        job.wait(LIMIT_S)
        assert "cat" in aii(stack_environment, "index", "list", name).stdout
        deleted = aii(stack_environment, "index", "delete", name, "--yes")
        assert deleted.returncode == 0, deleted.stderr
    with pytest.raises(CollectionMissing):
        producer.activate(data, asset_id="cat", collection=name).wait(LIMIT_S)


def test_what_cannot_be_built_is_refused_with_the_reason(
    stack_environment: dict[str, str], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    empty = aii_here(stack_environment, "index", "build", "nothing", "--images", str(tmp_path / "empty"), "--here")
    assert (empty.returncode, "No image in" in empty.stderr) == (1, True), empty.stderr
    few = aii_here(
        stack_environment, "index", "build", "few", "--images", str(images), "--factory", "IVF4096,PQ8x8", "--here"
    )
    assert (few.returncode, "cannot be trained on 300 features" in few.stderr) == (1, True)
    name = aii_here(stack_environment, "index", "build", "Not A Name", "--images", str(images))
    assert (name.returncode, "[invalid_collection_name]" in name.stderr) == (1, True)
    missing = aii_here(stack_environment, "index", "info", "missing")
    assert (missing.returncode, "[collection_missing]" in missing.stderr) == (1, True)


def test_a_collection_too_small_for_codes_says_that_activation_has_nothing_to_gain_there(
    start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str], images: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(images.glob("0[0-3]?.jpg")):
        path.rename(few / path.name)
    names = {factory: f"few-{uuid.uuid4().hex[:12]}" for factory in ("", "PQ8x4")}
    for factory, name in names.items():
        chosen = ("--factory", factory) if factory else ()
        done = aii_here(stack_environment, "index", "build", name, "--images", str(few), "--here", *chosen)
        assert done.returncode == 0, done.stderr
        assert ("activation has nothing to gain" in done.stderr) is (not factory)
    start_worker()
    said = {
        f: aii_here(stack_environment, "activate", str(images / "100.jpg"), "--collection", n) for f, n in names.items()
    }
    assert "PASSIVE (registered, but its collection finds the original itself at distance 0" in said[""].stdout
    assert ": activated, " in said["PQ8x4"].stdout


@pytest.mark.parametrize(
    ("count", "factory"),
    [
        (100, "Flat"),
        (1_000, "OPQ8_64,IVF16,PQ8x8"),
        (40_000, "OPQ8_64,IVF256,PQ8x8"),
        (1_000_000, "OPQ8_64,IVF1024,PQ8x8"),
        (100_000_000, "OPQ8_64,IVF65536,PQ8x8"),
    ],
)
def test_the_suggested_index_grows_with_the_number_of_images(count: int, factory: str) -> None:
    assert suggested_factory(count) == factory
    assert suggested_factory(1_000, 20) == "OPQ8_16,IVF16,PQ8x8"


def test_a_build_that_was_killed_goes_on_where_it_was(
    start_worker: Callable[..., WorkerProcess], stack_environment: dict[str, str], settings: Settings, images: Path
) -> None:
    name = f"interrupted-{uuid.uuid4().hex[:12]}"
    code = f"from producer.cli import aii; aii(['index', 'build', '{name}', '--images', '{images}'])"
    first = subprocess.Popen([sys.executable, "-c", code], env=stack_environment)
    with connect_redis(settings) as client:
        wait_for(lambda: client.llen("index") == 2, "the build submitted no jobs")  # of 256 images each
        first.kill()
        first.wait()
        start_worker()
        again = aii(stack_environment, "index", "build", name, "--images", str(images))
        assert again.returncode == 0, again.stderr
        assert "300 images (1 skipped)" in again.stdout
        assert client.hget("aii:counts", "submitted") == "2"
    assert "images      300" in aii_here(stack_environment, "index", "info", name).stdout
