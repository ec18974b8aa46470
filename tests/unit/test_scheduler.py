"""The device, with a small real network as extractor."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.errors import DeviceFailure, DeviceFull, NotReady, WorkerStopping
from tasks.messages import ActivationOptions
from tasks.results import ExtractorIdentity
from tests.waiting import LIMIT_S, wait_for
from workers.activation.compose import PreparedImage, prepare
from workers.activation.engine import Work
from workers.activation.objective import Objective
from workers.device.device import Device, _Waiting
from workers.index.codec.codec import Codec

SIDE, DIMENSION = 16, 8


class Convolution:
    """An extractor of one layer. It refuses an image whose first value is exactly 1, alone or in a batch."""

    name, sha256, input_size, dimension = "convolution", "0" * 64, SIDE, DIMENSION
    device = torch.device("cpu")
    half_guides = False
    identity = ExtractorIdentity(name=name, sha256=sha256, dimension=dimension)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._net = torch.nn.Conv2d(3, DIMENSION, SIDE).requires_grad_(False)
        self.batches: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        if bool((images[:, 0, 0, 0] == 1).any()):
            raise RuntimeError("this image cannot be computed")
        features: torch.Tensor = torch.nn.functional.normalize(self._net(images)[:, :, 0, 0], dim=1)
        return features

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        return self(images)


@pytest.fixture(scope="module")
def codec() -> Codec:
    features = np.random.default_rng(0).standard_normal((2000, DIMENSION)).astype(np.float32)
    return Codec.train("IVF16,PQ4x4", features / np.linalg.norm(features, axis=1, keepdims=True))


@pytest.fixture
def extractor() -> Convolution:
    return Convolution()


@pytest.fixture(params=[False, True], ids=["two threads", "in turn"])
def device(extractor: Convolution, request: pytest.FixtureRequest) -> Iterator[Device]:
    device = Device(extractor, batch_images=8, alternates=request.param)
    device.start()
    yield device
    device.stop()


def prepared(seed: int) -> PreparedImage:
    pixels = np.random.default_rng(seed).integers(0, 250, (40, 30, 3)).astype(np.uint8)
    return prepare(pixels, SIDE, alpha=3.0)


def work(seed: int, codec: Codec) -> Work:
    return Work(prepared(seed), codec, ActivationOptions(), 10)


def endless(codec: Codec, until: threading.Event) -> Work:
    return replace(work(0, codec), steps=10_000_000, take_all_steps=True, wanted=lambda: not until.is_set())


def test_activation_brings_the_feature_nearer_to_its_target(device: Device, codec: Codec) -> None:
    job = work(0, codec)
    found = device.activate(job)
    masks = torch.tensor(job.prepared.weights)[:, None, None] * job.prepared.mask
    moved = job.prepared.image + masks * (job.prepared.rows @ found.change @ job.prepared.columns.mT)
    feature = device.extract(moved.clamp(0, 1))
    loss = Objective.of(found.target, torch.device("cpu")).loss
    assert loss(torch.from_numpy(feature[None])) < loss(torch.from_numpy(found.feature[None]))


def test_the_same_image_gets_the_same_change_in_any_batch(device: Device, codec: Codec) -> None:
    alone = device.activate(work(0, codec))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: device.activate(work(seed, codec)), range(8)))
    assert max(f.batch_images for f in together) > 1
    assert (alone.change - together[0].change).abs().mean() < 0.01  # rounding may flip one of Adam's signs
    assert (alone.code == together[0].code).all()


def test_batches_of_every_size_are_warmed_before_the_first_job(codec: Codec, extractor: Convolution) -> None:
    Device(extractor, batch_images=3).warm(codec)
    assert set(extractor.batches) == {1, 2, 3}
    assert len(extractor.batches) > 6  # features, and steps


def test_results_come_back_to_those_who_asked(device: Device, extractor: Convolution) -> None:
    images = [prepared(seed).image for seed in range(20)]
    with ThreadPoolExecutor(20) as pool:
        features = list(pool.map(device.extract, images))
    for image, feature in zip(images, features, strict=True):
        assert np.allclose(feature, extractor(image[None])[0], atol=1e-5)


def test_one_image_that_fails_leaves_its_neighbours_unharmed(device: Device, codec: Codec) -> None:
    bad = work(3, codec)
    bad.prepared.image[:, 0, 0] = 1
    jobs = [work(seed, codec) for seed in range(3)] + [bad] + [work(seed, codec) for seed in range(4, 8)]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(device.activate, job) for job in jobs]
    assert [type(f.exception()) for f in futures] == [type(None)] * 3 + [DeviceFailure] + [type(None)] * 4


def test_a_query_does_not_wait_for_the_end_of_an_activation(device: Device, codec: Codec) -> None:
    with ThreadPoolExecutor(1) as pool:
        answered = threading.Event()
        long = pool.submit(device.activate, endless(codec, answered))
        for seed in range(5):
            device.extract(prepared(seed).image)
        assert not long.done()
        answered.set()
        assert long.result(LIMIT_S).steps < 10_000_000


def test_no_image_is_lost_between_a_thread_that_hands_over_and_the_one_that_takes_a_batch(
    device: Device, codec: Codec
) -> None:
    """Threads change places as often as Python can make them, so that one does in the worst of moments."""
    job = replace(work(0, codec), steps=1)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            futures = [pool.submit(device.activate, job) for _ in range(1000)]
            assert wait(futures, timeout=LIMIT_S).not_done == set()
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.parametrize("alternates", [False, True])
def test_callers_that_can_wait_share_a_batch_while_the_device_is_at_work(
    extractor: Convolution, codec: Codec, alternates: bool
) -> None:
    device = Device(extractor, batch_images=4, max_extract_delay_s=600, alternates=alternates)
    device.start()
    with ThreadPoolExecutor(5) as pool:
        answered = threading.Event()
        long = pool.submit(device.activate, endless(codec, answered))
        wait_for(lambda: extractor.batches, "the activation did not begin")
        waiting = [pool.submit(device.extract, prepared(seed).image, can_wait=True) for seed in range(4)]
        assert [len(future.result(LIMIT_S)) for future in waiting] == [DIMENSION] * 4
        answered.set()
        long.result(LIMIT_S)
    device.stop()
    assert 4 in extractor.batches


def test_a_caller_that_can_wait_does_not_wait_when_the_device_is_at_rest(extractor: Convolution, codec: Codec) -> None:
    device = Device(extractor, batch_images=4, max_extract_delay_s=600)
    device.start()
    device.activate(work(0, codec))
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(device.extract, prepared(0).image, can_wait=True).result(LIMIT_S)) == DIMENSION
    device.stop()


def test_a_device_that_fails_on_everything_ends_the_process_instead_of_failing_jobs(codec: Codec) -> None:
    class Broken(Convolution):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("unspecified launch failure")

    broken = threading.Event()
    device = Device(Broken(), batch_images=8, on_broken_device=broken.set)
    device.start()
    with pytest.raises(DeviceFailure):
        device.extract(prepared(0).image)
    assert broken.is_set()
    device.stop()


def test_a_stopped_device_leaves_the_job_to_another_worker(extractor: Convolution) -> None:
    device = Device(extractor, batch_images=8)
    device.start()
    device.stop()
    with pytest.raises(WorkerStopping):
        device.extract(prepared(0).image)


class Memory(Convolution):
    """Has memory for `most` images at a time: of others too, as long as a failed batch is not let go of."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.refused: list[int] = []
        self._held: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        held = sum(len(tensor) for ref in self._held if (tensor := ref()) is not None and tensor is not images)
        if len(images) + held > self.most:
            self.refused.append(len(images))
            kept = images * 1.0  # lives as long as this frame, that is as the error's traceback
            self._held.append(weakref.ref(kept))
            raise torch.OutOfMemoryError("no memory")
        return super().__call__(images)


def test_a_device_that_has_no_memory_for_its_batches_starts_with_smaller_ones_and_without_any_is_refused() -> None:
    device = Device(Memory(most=2), batch_images=4)
    device.warm(None)
    assert device._batch_images == 2
    with pytest.raises(DeviceFull, match="single image"):
        Device(Memory(most=0), batch_images=4).warm(None)


def test_a_device_out_of_memory_halves_its_batches_fails_no_image_and_remembers_what_fits() -> None:
    extractor = Memory(most=4)
    device = Device(extractor, batch_images=16, max_extract_delay_s=0.001)
    futures = [device._put(device._extractions, _Waiting(torch.full((3, SIDE, SIDE), i / 64))) for i in range(32)]
    device.start()
    for future in futures:
        assert len(future.result(LIMIT_S)) == DIMENSION
    refused = len(extractor.refused)
    assert max(extractor.batches) <= 4
    assert len(device.extract_all([torch.rand(3, SIDE, SIDE) for _ in range(20)])) == 20
    assert len(extractor.refused) == refused
    device.stop()


def test_an_image_that_finds_no_memory_even_alone_is_tried_later_and_ends_no_process() -> None:
    extractor, broken = Memory(most=0), threading.Event()
    device = Device(extractor, batch_images=4, on_broken_device=broken.set)
    device.start()
    with pytest.raises(DeviceFull):
        device.extract(torch.rand(3, SIDE, SIDE))
    extractor.most = 1
    assert len(device.extract(torch.rand(3, SIDE, SIDE))) == DIMENSION
    device.check()
    device.stop()
    assert not broken.is_set()
    with pytest.raises(NotReady):
        device.check()
