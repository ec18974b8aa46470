"""Preparing a network at load: a faster form of it, checked to give the same features.

Batch norms are folded into the convolutions before them, tensors are laid out channels last, and bfloat16 is used
where the hardware has it and is faster in it. Each form is checked against the plain float32 network.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.optimization import fuse

from tasks.errors import CorruptExtractor
from workers.extractors.network import embed

__all__ = ["PreparedNetwork", "half_precision", "prepare"]

logger = logging.getLogger(__name__)

LEAST_COSINE: Final = 0.999
_CLEARLY: Final = 1.1  # float32 is kept unless it takes this many times as long: noise must not decide a tie


@dataclass(frozen=True)
class PreparedNetwork:
    """A network ready to serve.

    Attributes:
        net: for :func:`workers.extractors.network.embed` with ``dtype``.
        dimension: length of a feature.
        cosine: least cosine between its features and the plain float32 network's, over the probe images.
    """

    net: nn.Module
    dtype: torch.dtype
    dimension: int
    cosine: float


def half_precision(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16, instead of imitating it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def prepare(name: str, net: nn.Module, input_size: int, device: torch.device, half: bool) -> PreparedNetwork:
    """The fastest form of a network that gives its own float32 features, to a cosine of 0.999.

    Args:
        half: whether bfloat16 is tried. It is taken where it is faster as well, which hardware that has it does not
            promise: ResNet-50 took 188 ms an image in it, and 121 ms in float32, on two cores with AVX512-BF16.

    Raises:
        CorruptExtractor: the network fails on an image, or gives features that are no numbers.
    """
    plain = net.eval().to(device)
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    probes = _probes(input_size, device)
    expected = _features(name, plain, probes)
    folded = _folded(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forms = [(folded, torch.float32)]
    if half:
        forms.append((copy.deepcopy(folded).to(torch.bfloat16), torch.bfloat16))
    agreeing = []
    for form, dtype in forms:
        cosine = float(F.cosine_similarity(_features(name, form, probes, dtype), expected).min())
        if cosine >= LEAST_COSINE:
            agreeing.append(PreparedNetwork(form, dtype, expected.shape[1], cosine))
        else:
            logger.warning(
                "Extractor %s in %s: cosine %.5f to its own float32 features, below %s; a slower form is used.",
                name, dtype, cosine, LEAST_COSINE,
            )  # fmt: skip
    if len(agreeing) == 2 and _step_s(agreeing[0], probes) < _CLEARLY * _step_s(agreeing[1], probes):
        agreeing.pop()
    return agreeing[-1] if agreeing else PreparedNetwork(plain, torch.float32, expected.shape[1], 1.0)


def _step_s(form: PreparedNetwork, probes: torch.Tensor) -> float:
    """Seconds for one step of an optimisation: forward, and backward to the images. The best of three."""
    images = probes.clone().requires_grad_(True)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        gradient = torch.autograd.grad(embed(form.net, images, form.dtype)[:, 0].sum(), images)[0]
        float(gradient.sum())  # waits for the device
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _folded(net: nn.Module) -> nn.Module:
    """Without the batch norms that follow a convolution. TorchScript, and code that branches, cannot be traced."""
    if isinstance(net, torch.jit.ScriptModule):
        return net
    try:
        folded: nn.Module = fuse(net)
    except (torch.fx.proxy.TraceError, NotImplementedError, TypeError) as error:
        logger.info("Batch norms are left as they are: %s", error)
        return net
    return folded


def _probes(side: int, device: torch.device) -> torch.Tensor:
    """Eight images (8, 3, side, side) in [0, 1] with structure at all scales, like photographs; always the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(8, 3, side, side)
    for cells in (2, 4, 8, 16, 32):
        noise = torch.randn(8, 3, cells, cells, generator=generator) / cells**0.5
        images += F.interpolate(noise, (side, side), mode="bilinear")
    return torch.sigmoid(1.5 * images).to(device)


def _features(name: str, net: nn.Module, probes: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    try:
        with torch.no_grad():
            features = embed(net, probes, dtype)
    except RuntimeError as error:
        raise CorruptExtractor(f"Extractor {name} fails on an image of side {probes.shape[-1]}: {error}") from error
    if features.ndim != 2 or not torch.isfinite(features).all():
        raise CorruptExtractor(
            f"Extractor {name} gives {tuple(features.shape)} for {len(probes)} images, or values that are no numbers: "
            "the weights are damaged, or are no extractor's."
        )
    return features
