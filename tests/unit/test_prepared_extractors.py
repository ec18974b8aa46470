"""Preparation for speed changes no code that is registered, and no gradient by much."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tasks.errors import CorruptExtractor, InvalidSetting
from workers.extractors.agreement import (
    LEAST_COSINE,
    LEAST_EQUAL_CODES,
    LEAST_GRADIENT_COSINE,
    Form,
    _gradients,
    compare,
)
from workers.extractors.compact import CompactNet
from workers.extractors.fused import fused
from workers.extractors.network import embed
from workers.extractors.prepare import _forms, prepare
from workers.extractors.probes import probes
from workers.extractors.registry import load_network

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
IMAGES = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net() -> CompactNet:
    """A network whose batch norms have left their neutral start."""
    torch.manual_seed(0)
    net = CompactNet()
    net.train()(torch.rand(8, 3, 64, 64))
    return net.eval()


class Cancelling(nn.Module):
    """A network whose answer is a small difference of large numbers: bfloat16 loses it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        large = images + 1000.0
        return (large - 1000.0).mean(dim=(2, 3)) + 1e-3


class Branching(nn.Module):
    """A network that cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.bn(self.conv(images))
        return x.mean(dim=(2, 3)) if float(x.detach().mean()) > 0 else x.amax(dim=(2, 3))


def batch_norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_batch_norms_are_folded_and_the_features_stay(net: CompactNet) -> None:
    expected = embed(net, IMAGES)
    prepared = prepare("compact", net, 64, CPU, "float32")
    assert batch_norms(net) > 0
    assert batch_norms(prepared.registers.net) == 0
    assert prepared.guides is prepared.registers
    assert torch.allclose(prepared.registers.features(IMAGES), expected, atol=1e-5)


def test_in_bfloat16_an_image_may_be_optimised_but_codes_are_registered_in_float32() -> None:
    net = load_network("compact").eval()
    prepared = prepare("compact", net, 112, CPU, "bfloat16")
    assert (prepared.registers.dtype, prepared.guides.dtype) == (torch.float32, torch.bfloat16)
    assert prepared.agreement.cosine >= LEAST_COSINE
    assert prepared.agreement.gradient_cosine >= LEAST_GRADIENT_COSINE
    assert prepared.agreement.equal_codes < LEAST_EQUAL_CODES
    images = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(prepared.registers.features(images), embed(net, images), atol=1e-5)
        assert (prepared.guides.features(images) * embed(net, images)).sum(dim=1).min() >= LEAST_COSINE


def test_what_is_chosen_does_not_depend_on_how_long_anything_takes(net: CompactNet) -> None:
    one, other = (prepare("compact", copy.deepcopy(net), 64, CPU, "auto") for _ in range(2))
    assert one.agreement == other.agreement
    assert (one.guides.dtype, one.registers.dtype) == (other.guides.dtype, other.registers.dtype)


def test_a_network_that_half_precision_harms_is_not_run_in_it_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(InvalidSetting, match="AII_PRECISION is bfloat16"):
        prepare("cancelling", Cancelling(), 64, CPU, "bfloat16")
    assert "cancelling in torch.bfloat16 does not agree" in caplog.text
    assert prepare("cancelling", Cancelling(), 64, CPU, "auto").guides.dtype == torch.float32


def test_the_last_layers_in_float32_bring_a_form_nearer(net: CompactNet) -> None:
    exact = Form(net)
    whole, mixed = _forms(net.requires_grad_(False), torch.bfloat16)
    images = probes(64, CPU)
    assert compare(mixed, exact, images).equal_codes >= compare(whole, exact, images).equal_codes


def test_probes_are_always_the_same_and_have_the_spectrum_of_photographs() -> None:
    images = probes(64, CPU)
    assert torch.equal(images, probes(64, CPU))
    power = torch.fft.rfft2(images - images.mean(dim=(2, 3), keepdim=True)).abs().square().mean(dim=(0, 1))[0]
    octaves = torch.stack([power[low : 2 * low].mean() for low in (1, 2, 4, 8)])
    slopes = (octaves[1:] / octaves[:-1]).log2()
    assert ((slopes < -1) & (slopes > -3)).all()  # power falls with the square of the frequency


def test_a_network_that_cannot_be_traced_is_used_as_it_is() -> None:
    prepared = prepare("branching", Branching(), 64, CPU, "float32")
    assert batch_norms(prepared.registers.net) == 1
    assert prepared.dimension == 8


def test_a_network_that_fails_or_gives_no_numbers_is_refused(net: CompactNet) -> None:
    with pytest.raises(CorruptExtractor, match="fails on an image of side 64"):
        prepare("wrong", nn.Sequential(nn.Flatten(), nn.Linear(5, 5)), 64, CPU, "float32")
    nn.init.constant_(net.project.weight, float("inf"))
    with pytest.raises(CorruptExtractor, match="no numbers"):
        prepare("spoilt", net, 64, CPU, "float32")


def test_gradients_too_small_for_float16_lead_the_optimiser_all_the_same() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    with torch.no_grad():
        net[1].weight.mul_(0.1)
        net[1].bias.add_(20_000)  # a feature so long that the gradient of its direction is below float16's least
    exact, half = Form(net.requires_grad_(False)), Form(copy.deepcopy(net).half(), torch.float16)
    images, targets = torch.rand(4, 3, 16, 16), torch.rand(4, 8)
    found, expected = (_gradients(form, images, targets) for form in (half, exact))
    assert F.cosine_similarity(found, expected).min() > 0.99


class Residual(nn.Module):
    """Convolutions that fit with what follows them, and some that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.shorter, self.alone = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, bias=False)
        self.grouped, self.relu = nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(inplace=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(images))
        out = self.second(x)
        out += self.shorter(x)
        x = self.relu(out)
        x = F.relu(x + self.alone(x))
        once = self.shorter(x)
        x = F.relu(once) + once  # needed twice
        x = torch.relu(once + once) + x
        return F.relu(self.grouped(x)).mean(dim=(2, 3))


def test_convolutions_take_their_relu_along_and_the_network_stays_the_same() -> None:
    torch.manual_seed(0)
    net = Residual().requires_grad_(False)
    merged = fused(torch.fx.symbolic_trace(net))
    called = [str(node.target) for node in merged.graph.nodes if node.op == "call_module"]
    assert called == ["fused_first", "shorter", "fused_second", "fused_alone", "shorter", "grouped"]
    of_both = [F.normalize(form(IMAGES), dim=1) for form in (net, merged)]
    assert torch.allclose(*of_both, atol=1e-6)
    targets = torch.rand(4, 8)
    gradients = [_gradients(Form(form), IMAGES, targets) for form in (net, merged)]
    assert F.cosine_similarity(*gradients).min() > 0.9999


class Unusual(nn.Module):
    """Two modules whose names differ by a dot, and calls by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.a_b, self.a = nn.Conv2d(3, 8, 3), nn.ModuleDict({"b": nn.Conv2d(8, 8, 3)})
        self.c = nn.Conv2d(8, 8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.a["b"](F.relu(self.a_b(images))))
        return F.relu(input=F.relu(self.c(input=x))).mean(dim=(2, 3))


def test_unusual_networks_stay_the_same_too() -> None:
    torch.manual_seed(0)
    net = Unusual().requires_grad_(False)
    merged = fused(torch.fx.symbolic_trace(net))
    called = [str(node.target) for node in merged.graph.nodes if node.op == "call_module"]
    assert called == ["fused_a_b", "fused_a_b_1", "c"]
    assert torch.allclose(merged(IMAGES), net(IMAGES), atol=1e-6)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gpu_merges_layers_and_finds_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = Residual().requires_grad_(False).cuda()
    images = probes(64, torch.device("cuda"))
    merged = Form(copy.deepcopy(fused(torch.fx.symbolic_trace(net))).to(dtype), dtype)
    agreement = compare(merged, Form(net), images)
    assert agreement.may_guide
    assert agreement.may_register or dtype is not torch.float32


@needs_gpu
def test_on_a_gpu_codes_are_registered_by_merged_layers() -> None:
    prepared = prepare("compact", load_network("compact"), 160, torch.device("cuda"), "auto")
    assert prepared.registers.layout is torch.contiguous_format
    assert any(str(node.target).startswith("fused_") for node in prepared.registers.net.graph.nodes)
