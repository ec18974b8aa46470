"""What the networks of all extractors share: colours normalised before, GeM pooling inside, L2 norm 1 behind."""

from functools import lru_cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["IMAGENET_STD", "GeM", "colour_std", "embed"]

# Colour statistics of natural photographs, which torchvision's models and SSCD were trained with.
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


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


def embed(net: nn.Module, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Features (B, D) float32 of norm 1, by a network that runs in ``dtype``, of images (B, 3, S, S) in [0, 1].

    Colours are normalised in float32, because in bfloat16 neighbouring bright values are whole grey levels apart.
    """
    colours = ((images - _constant(IMAGENET_MEAN, images.device)) / colour_std(images.device)).to(
        dtype, memory_format=torch.channels_last
    )
    return F.normalize(net(colours).float(), dim=1)
