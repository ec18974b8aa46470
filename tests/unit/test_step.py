"""A step of the optimiser never waits for its device, and keeps its shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from tasks.results import ExtractorIdentity
from workers.activation.objective import Objective
from workers.activation.optimiser import PACES, Pace, Runner, optimise
from workers.activation.step import Batch, Schedule, State, forward, step
from workers.extractors import network
from workers.extractors.compact import CompactNet
from workers.extractors.network import embed

SIDE, IMAGES, DIMENSION = 32, 3, 256
SETTLING = Schedule(6, 1.0, settle=0.01)
READS: Final = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero"}


class Compact:
    """The network of `compact` with random weights, on any device, real or not."""

    name, sha256, input_size, dimension, half_guides = "random", "0" * 64, SIDE, DIMENSION, False
    identity = ExtractorIdentity(name=name, sha256=sha256, dimension=dimension)

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        torch.manual_seed(0)
        with self.device:
            self._net = CompactNet().eval().requires_grad_(False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return embed(self._net, images)

    guide = __call__


class Reads(TorchFunctionMode):
    """Counts what makes the host wait for a device."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in READS
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _no_constants_of_other_devices() -> Iterator[None]:
    """Tensors of a device that is not there must not be found by other tests."""
    network._constant.cache_clear()
    yield
    network._constant.cache_clear()


def batch_on(device: str) -> tuple[Batch, Objective]:
    with torch.device(device):
        images, square = torch.rand(IMAGES, 3, SIDE, SIDE), torch.eye(SIDE).expand(IMAGES, -1, -1)
        aspects, grey = torch.ones(IMAGES), torch.zeros(IMAGES, dtype=torch.bool)
        points, cells = torch.rand(IMAGES, DIMENSION), torch.rand(IMAGES, 16, 64)
        objective = Objective(points, None, cells, torch.rand(64, DIMENSION), torch.rand(64))
    return Batch(images, torch.full_like(images, 0.05), square, square, aspects, grey), objective


def take_step(device: str) -> tuple[State, list[int]]:
    """A state after one step, and where its tensors are."""
    extractor, state = Compact(device), State.of(*batch_on(device))
    places = [id(tensor) for tensor in state.tensors()]
    step(state, SETTLING, forward(extractor, state.batch, state.delta))
    return state, places


def test_a_step_needs_no_value_of_any_tensor() -> None:
    """On the meta device there are none: reading one raises."""
    state, places = take_step("meta")
    assert [id(tensor) for tensor in state.tensors()] == places
    assert state.delta.shape == (IMAGES, 3, SIDE, SIDE)


def test_a_step_on_a_gpu_mixes_no_devices_and_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: tensors that only have a device and a shape. Torch's backward pass needs a driver, and is left out
    here; the test above runs it."""
    monkeypatch.setattr(torch.autograd, "grad", lambda _, leaf, **__: (torch.empty_like(leaf),))
    with FakeTensorMode():
        state, _ = take_step("cuda:0")
        assert {tensor.device for tensor in state.tensors()} == {torch.device("cuda:0")}


def test_the_loop_reads_once_a_step_at_most() -> None:
    extractor, reads, counts = Compact("cpu"), Reads(), []
    steps = optimise(Runner(extractor, Pace((1, 4), late=True)), *batch_on("cpu"), SETTLING, lambda: [True] * IMAGES)
    with reads:
        for _ in steps:
            counts.append(reads.count)
            reads.count = 0
    assert len(counts) > 2
    assert max(counts) <= 1
    assert sum(counts) > 0


def test_a_gpu_knows_few_sizes_of_batches() -> None:
    sizes = {PACES["cuda"].size(images) for images in range(1, 257)}
    assert sizes == {1, 4, 16, 64, 128, 192, 256}
    assert all(PACES["cpu"].size(images) == images for images in (1, 3, 100))
