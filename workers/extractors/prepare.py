"""Preparing a network at load: faster forms of it, checked to agree with the plain float32 network.

Batch norms are folded into the convolutions before them, tensors are laid out channels last, and on a GPU convolutions
take their ReLU along. Half precision is used where the hardware computes in it and the results agree; what is measured
is agreement, never time, so that all workers with the same hardware choose alike. One form *guides* the optimiser, and
may be in half precision; one *registers* codes and verifies images, and is in float32 unless half precision gives the
same codes: a fleet of mixed hardware registers the same ones.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from tasks.errors import CorruptExtractor, InvalidSetting
from workers.extractors.agreement import Agreement, Form, compare
from workers.extractors.fused import fused
from workers.extractors.probes import probes

__all__ = ["PRECISIONS", "PreparedNetwork", "prepare"]

logger = logging.getLogger(__name__)

PRECISIONS: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class PreparedNetwork:
    """A network ready to serve.

    Attributes:
        registers: the form whose features are registered, searched and verified.
        guides: the form that leads the optimiser; often the same.
        dimension: length of a feature.
        agreement: of `guides` with float32.
    """

    registers: Form
    guides: Form
    dimension: int
    agreement: Agreement = field(default_factory=Agreement)


def prepare(name: str, net: nn.Module, input_size: int, device: torch.device, precision: str) -> PreparedNetwork:
    """The forms of a network that serve it best on this device.

    Args:
        precision: `auto`, or the one of :data:`PRECISIONS` that guides the optimiser.

    Raises:
        CorruptExtractor: the network fails on an image, or gives features that are no numbers.
        InvalidSetting: the network does not agree with itself in the precision that was asked for.
    """
    _use_whole_float32(device)
    plain = net.eval().to(device)
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    images = probes(input_size, device)
    dimension = _checked_dimension(name, Form(plain), images)
    exact = _exact(name, plain, images)
    for dtype in _candidates(device, precision):
        for form in _forms(exact.net, dtype):
            agreement = _agreement(form, exact, images)
            if agreement.may_guide:
                return PreparedNetwork(form if agreement.may_register else exact, form, dimension, agreement)
            logger.warning("Extractor %s in %s does not agree with float32: %s", name, dtype, agreement)
    if precision not in ("auto", "float32"):
        raise InvalidSetting(
            f"AII_PRECISION is {precision}, in which the extractor {name} gives other features or gradients than in "
            "float32 on this device: set it to auto or float32."
        )
    return PreparedNetwork(exact, exact, dimension)


def _use_whole_float32(device: torch.device) -> None:
    """By default CUDA's convolutions round float32 to the ten bits of TF32, and one code of twenty would differ."""
    if device.type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        # Chosen by the shape and not by a stopwatch, so that all workers compute alike: on an H100 it takes as long.
        torch.backends.cudnn.benchmark = False


def _candidates(device: torch.device, precision: str) -> list[torch.dtype]:
    """Half precisions to try, best first. float16 rounds eight times finer; CPUs imitate it, and take ten times as long
    as in float32."""
    if precision != "auto":
        return [dtype for name, dtype in PRECISIONS.items() if name == precision != "float32"]
    if device.type == "cuda":
        return [torch.float16, torch.bfloat16]
    computes = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return [torch.bfloat16] if computes else []


def _forms(net: nn.Module, dtype: torch.dtype) -> Iterator[Form]:
    """In half precision throughout, and with the last layers in float32."""
    yield Form(_in_half(net, dtype), dtype)
    if not isinstance(net, torch.jit.ScriptModule) and (mixed := _mixed(net, dtype)):
        yield Form(mixed, dtype)


def _in_half(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy, channels last whatever its layout was."""
    half: nn.Module = copy.deepcopy(net).to(dtype)
    return half.to(memory_format=torch.channels_last)


def _mixed(net: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """In half precision up to the last layer that shrinks the map; None where none does."""
    mixed = _in_half(net, dtype)
    leaves = [module for module in mixed.modules() if not list(module.children())]
    shrinking = [i for i, m in enumerate(leaves) if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    if not shrinking:
        return None
    for module in leaves[shrinking[-1] :]:
        module.float()
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(_cast)
    return mixed


def _cast(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The inputs in the precision of the module's weights."""
    return tuple(x.to(module.weight.dtype) for x in inputs)


def _agreement(form: Form, exact: Form, images: torch.Tensor) -> Agreement:
    try:
        return compare(form, exact, images)
    except torch.OutOfMemoryError:  # a RuntimeError that says nothing of the form
        raise
    except RuntimeError as error:
        logger.info("%s cannot be computed here: %s", form.dtype, error)
        return Agreement(-1.0, -1.0, 0.0)


def _exact(name: str, plain: nn.Module, images: torch.Tensor) -> Form:
    """The fastest form in float32 that agrees with the network as it came."""
    for form in _faster(plain, images.device):
        agreement = _agreement(form, Form(plain), images)
        if agreement.may_register:
            return form
        logger.warning("Extractor %s with its layers merged does not agree with itself: %s", name, agreement)
    return Form(plain)


def _faster(plain: nn.Module, device: torch.device) -> Iterator[Form]:
    """Forms in float32, fastest first."""
    folded = _folded(plain)
    if device.type == "cuda" and isinstance(folded, torch.fx.GraphModule):
        # Channels last is for half precision: ResNet-50 takes an H100 0.49 ms an image of 64 here, and 0.66 so.
        layout = torch.contiguous_format  # of weights that both forms share, until the next one is asked for
        yield Form(fused(folded).to(memory_format=layout), layout=layout)  # type: ignore[call-overload]
    yield Form(folded.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


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


def _checked_dimension(name: str, plain: Form, images: torch.Tensor) -> int:
    """How long a feature is, after checks that there is one."""
    try:
        with torch.no_grad():
            features = plain.features(images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise CorruptExtractor(f"Extractor {name} fails on an image of side {images.shape[-1]}: {error}") from error
    if features.ndim != 2 or not torch.isfinite(features).all():
        raise CorruptExtractor(
            f"Extractor {name} gives {tuple(features.shape)} for {len(images)} images, or values that are no numbers: "
            "the weights are damaged, or are no extractor's."
        )
    return features.shape[1]
