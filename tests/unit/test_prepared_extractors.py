"""Preparation for speed never changes what an extractor gives by more than a cosine of 0.001."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tasks.errors import CorruptExtractor
from workers.extractors import prepare as preparation
from workers.extractors.compact import CompactNet
from workers.extractors.network import embed
from workers.extractors.prepare import LEAST_COSINE, prepare

CPU = torch.device("cpu")
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
        return x.mean(dim=(2, 3)) if float(x.mean()) > 0 else x.amax(dim=(2, 3))


def batch_norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_batch_norms_are_folded_and_the_features_stay(net: CompactNet) -> None:
    expected = embed(net, IMAGES)
    prepared = prepare("compact", net, 64, CPU, half=False)
    assert batch_norms(net) > 0
    assert batch_norms(prepared.net) == 0
    assert torch.allclose(embed(prepared.net, IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize(("seconds", "taken"), [(0.5, torch.bfloat16), (1.0, torch.float32)])
def test_bfloat16_is_used_where_the_features_agree_and_it_is_faster(
    net: CompactNet, monkeypatch: pytest.MonkeyPatch, seconds: float, taken: torch.dtype
) -> None:
    monkeypatch.setattr(preparation, "_step_s", lambda form, _: 1.0 if form.dtype == torch.float32 else seconds)
    prepared = prepare("compact", net, 64, CPU, half=True)
    features = embed(prepared.net, IMAGES, prepared.dtype)
    assert prepared.dtype == taken
    assert LEAST_COSINE <= prepared.cosine <= 1 + 1e-6
    assert features.dtype == torch.float32
    assert (features * embed(net, IMAGES)).sum(dim=1).min() >= LEAST_COSINE


def test_a_network_that_bfloat16_harms_stays_in_float32_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepared = prepare("cancelling", Cancelling(), 64, CPU, half=True)
    assert prepared.dtype == torch.float32
    assert "cancelling in torch.bfloat16" in caplog.text


def test_a_network_that_cannot_be_traced_is_used_as_it_is() -> None:
    prepared = prepare("branching", Branching(), 64, CPU, half=False)
    assert batch_norms(prepared.net) == 1
    assert prepared.dimension == 8


def test_a_network_that_fails_or_gives_no_numbers_is_refused(net: CompactNet) -> None:
    with pytest.raises(CorruptExtractor, match="fails on an image of side 64"):
        prepare("wrong", nn.Sequential(nn.Flatten(), nn.Linear(5, 5)), 64, CPU, half=False)
    nn.init.constant_(net.project.weight, float("inf"))
    with pytest.raises(CorruptExtractor, match="no numbers"):
        prepare("spoilt", net, 64, CPU, half=False)
