"""What holds whether a worker optimises in float32 or bfloat16: which one it takes depends on its processor."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tasks.messages import ActivationOptions
from tests.images_zoo import LIMITS
from tests.photographs import crops
from workers.activation.compose import compose, prepare
from workers.activation.engine import Activated, Engine, Work
from workers.extractors.agreement import Form
from workers.extractors.prepare import PreparedNetwork
from workers.extractors.registry import NetworkExtractor, load_network
from workers.images import decode, encode
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Features, search

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU = torch.device("cpu")
# Fine enough that no other crop of the same picture is as near as an image's own code: between the nearest two, there
# is at least ten times as much as the precision changes.
FACTORY = "IVF4,PQ16x8"
OPTIONS = ActivationOptions()


@cache
def extractor(precision: str) -> NetworkExtractor:
    net = load_network("compact").eval().requires_grad_(False)
    side, dtype = 112, PRECISIONS[precision]
    exact = Form(net)
    guides = exact if dtype == torch.float32 else Form(copy.deepcopy(net).to(dtype), dtype)
    dimension = exact.features(torch.zeros(1, 3, side, side)).shape[1]
    return NetworkExtractor("compact", "0" * 64, side, PreparedNetwork(exact, guides, dimension), CPU)


def features(precision: str, files: Sequence[bytes]) -> Features:
    side = extractor(precision).input_size
    images = torch.stack([to_input(decode(data, LIMITS).pixels, side) for data in files])
    with torch.no_grad():
        return extractor(precision)(images).numpy()


@dataclass(frozen=True)
class Registered:
    """A collection of 300 photographs and then eight activated ones, all by one precision, and the published files."""

    codec: Codec
    index: Any
    activated: Sequence[Activated]
    files: Sequence[bytes]


@cache
def registered(precision: str) -> Registered:
    own = features(precision, crops(300))
    codec = Codec.train(FACTORY, own)
    originals = [decode(data, LIMITS) for data in crops(8, side=200)]
    side = extractor(precision).input_size
    prepared = [prepare(o.pixels, side, OPTIONS.alpha, OPTIONS.attenuation) for o in originals]
    works = [Work(p, codec, OPTIONS, OPTIONS.steps) for p in prepared]
    activated = finished(Engine(extractor(precision)).activate(works))
    files = [
        encode(compose(original.samples, p, a.change), original).data
        for original, p, a in zip(originals, prepared, activated, strict=True)
    ]
    index = codec.filled(np.concatenate([codec.encode(own), [a.code for a in activated]]))
    return Registered(codec, index, activated, files)


def finished(steps: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("asking", PRECISIONS)
@pytest.mark.parametrize("registering", PRECISIONS)
def test_an_activated_image_is_its_own_first_match_whatever_precision_registered_it_and_asks(
    registering: str, asking: str
) -> None:
    held = registered(registering)
    for number, feature in enumerate(features(asking, held.files)):
        (first, _), *_ = search(held.index, held.codec.probe(feature, 4), 1)
        assert first == 300 + number


@pytest.mark.parametrize("precision", PRECISIONS)
def test_activation_moves_an_image_nearer_to_its_code_in_every_precision(precision: str) -> None:
    held = registered(precision)
    for activated, after in zip(held.activated, features(precision, held.files), strict=True):
        assert activated.target.distance(after) < activated.target.distance(activated.feature)


def test_workers_of_both_precisions_register_the_same_codes() -> None:
    one, other = (np.stack([a.code for a in registered(precision).activated]) for precision in PRECISIONS)
    assert (one == other).all()


def test_the_two_precisions_give_nearly_the_same_feature() -> None:
    images = torch.stack([to_input(decode(data, LIMITS).pixels, 112) for data in crops(20)])
    with torch.no_grad():
        one, other = (extractor(precision).guide(images) for precision in PRECISIONS)
    assert (one * other).sum(dim=1).min() > 0.999
