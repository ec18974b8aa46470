"""Making a network fast, once, at load: and making sure that it still gives the features it gave before.

Batch norms are folded into the convolutions before them, tensors are laid out channels last, and bfloat16 is used
where the hardware has it. Each way is checked against the plain float32 network; the first that agrees is taken.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.optimization import fuse

from tasks.errors import CorruptExtractor
from workers.extractors.network import embed

__all__ = ["Prepared", "best_precision", "prepare"]

logger = logging.getLogger(__name__)

LEAST_COSINE: Final = 0.999


@dataclass(frozen=True)
class Prepared:
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


def best_precision(device: torch.device, *, narrow: bool) -> torch.dtype:
    """bfloat16 where the hardware computes in it, float32 elsewhere.

    Networks with ``narrow`` layers stay in float32 on a CPU: what bfloat16 saves in arithmetic it loses in conversions
    (``compact``, two cores with AVX512-BF16, forward and backward: 10.5 ms an image in float32, 14.6 in bfloat16).
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = not narrow and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def prepare(name: str, net: nn.Module, input_size: int, device: torch.device, wanted: torch.dtype) -> Prepared:
    """The fastest form of a network that gives its own float32 features, to a cosine of 0.999.

    Raises:
        CorruptExtractor: the network fails on an image, or gives features that are no numbers.
    """
    plain = net.eval().to(device)
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    probes = _probes(input_size, device)
    expected = _features(name, plain, probes)
    folded = _folded(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for dtype in dict.fromkeys((wanted, torch.float32)):
        candidate = copy.deepcopy(folded).to(dtype) if dtype != torch.float32 else folded
        cosine = float(F.cosine_similarity(_features(name, candidate, probes, dtype), expected).min())
        if cosine >= LEAST_COSINE:
            return Prepared(candidate, dtype, expected.shape[1], cosine)
        logger.warning(
            "Extractor %s in %s: cosine %.5f to its own float32 features, below %s; a slower form is used.",
            name, dtype, cosine, LEAST_COSINE,
        )  # fmt: skip
    return Prepared(plain, torch.float32, expected.shape[1], 1.0)


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
