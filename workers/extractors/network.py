"""What the networks of all extractors share: colours normalised before, GeM pooling inside, L2 norm 1 behind."""

from functools import lru_cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["IMAGENET_STD", "GeM", "colour_std", "embed", "normalised"]

# Colour statistics of natural photographs, which torchvision's models and SSCD were trained with.
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
# Cosine of the gradients of real SSCD weights in float16 with those in float32: 0.930 as they are, 0.988
# from 64 on; 0.986 on an H100.
_GRADIENTS_ENLARGED: Final = 1024.0


class GeM(nn.Module):
    """Generalised-mean pooling (Radenovic et al., 2018): (B, C, H, W) to (B, C).

    Args:
        p: the exponent; 1 is the average, infinity the maximum.
        learned: whether training moves ``p``, and the weights file carries it.
        floor: keeps the gradient of the power finite where a channel is zero.
    """

    p: torch.Tensor

    def __init__(self, p: float = 3.0, *, learned: bool = False, floor: float = 1e-6) -> None:
        super().__init__()
        if learned:
            self.p = nn.Parameter(torch.tensor(p))
        else:
            self.register_buffer("p", torch.tensor(p), persistent=False)
        self.floor = floor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.p.float()  # powers lose too much in half precision
        pooled = x.float().clamp(min=self.floor).pow(p).mean((2, 3)).pow(1.0 / p)
        return pooled.to(x.dtype)


def colour_std(device: torch.device) -> torch.Tensor:
    """(3, 1, 1) float32, by which normalised colours were divided."""
    return _constant(IMAGENET_STD, device)


@lru_cache(maxsize=16)
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Made once a device: a new one would be a copy that a GPU waits for."""
    return torch.tensor(values, device=device)[:, None, None]


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Colours (B, 3, S, S) in [0, 1], as networks for natural photographs take them."""
    return (images - _constant(IMAGENET_MEAN, images.device)) / colour_std(images.device)


def embed(
    net: nn.Module,
    images: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.channels_last,
) -> torch.Tensor:
    """Features (B, D) float32 of norm 1, by a network that runs in ``dtype`` on tensors of ``layout``, of images
    (B, 3, S, S) in [0, 1].

    Colours are normalised in float32, because in bfloat16 neighbouring bright values are whole grey levels apart. In
    float16 gradients are enlarged on their way through the network, because most would be too small for its exponent.
    """
    colours = normalised(images)
    if dtype is torch.float16:
        colours = _gradient_times(colours, 1 / _GRADIENTS_ENLARGED)
    found = net(colours.to(dtype, memory_format=layout)).float()
    if dtype is torch.float16:
        found = _gradient_times(found, _GRADIENTS_ENLARGED)
    return F.normalize(found, dim=1)


class _GradientTimes(torch.autograd.Function):
    """Gives back what it is given; its gradient is multiplied by a factor."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, factor: float) -> torch.Tensor:
        context.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return gradient * context.factor, None


def _gradient_times(values: torch.Tensor, factor: float) -> torch.Tensor:
    return _GradientTimes.apply(values, factor)  # type: ignore[no-any-return, no-untyped-call]
