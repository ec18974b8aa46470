"""The extractor we ship: a small residual network, GeM pooling, a whitened 256-d feature of norm 1.

Shaped after SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022), at a thousandth
of its cost, so that ten optimisation steps through it are cheap on one CPU core.
"""

import torch
import torch.nn.functional as F
from torch import nn

from workers.extractors.network import GeM

__all__ = ["DIMENSION", "INPUT_SIZE", "CompactNet"]

INPUT_SIZE = 112
DIMENSION = 256
STEM = 32
WIDTHS = (48, 96, 192)
BLOCKS_PER_STAGE = 2
EMBEDDED = 384  # channels that GeM pools


class ConvBN(nn.Module):
    """Convolution and batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self.bn(self.conv(x))
        return normalised


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = ConvBN(inputs, outputs, 3, stride)
        self.second = ConvBN(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvBN(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Whitening(nn.Module):
    """Batch norm without a learned shift: features then have mean zero, and cannot all drift to one side of the sphere.

    Not ``nn.BatchNorm1d``, since torch's fusion of a linear layer with that asks for learned parameters.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(dimension))
        self.register_buffer("running_var", torch.ones(dimension))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, training=self.training)


class CompactNet(nn.Module):
    """Colour-normalised images (B, 3, S, S) to embeddings (B, 256), of any norm; any S of at least 32 works."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN(3, STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = STEM
        for width in WIDTHS:
            for position in range(BLOCKS_PER_STAGE):
                blocks.append(Block(inputs, width, stride=2 if position == 0 else 1))
                inputs = width
        self.stages = nn.Sequential(*blocks)
        self.widen = ConvBN(inputs, EMBEDDED, 1)
        self.pool = GeM(learned=True, floor=1e-4)
        self.project = nn.Linear(EMBEDDED, DIMENSION, bias=False)
        self.whiten = Whitening(DIMENSION)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stages(F.relu(self.stem(images)))
        x = self.pool(F.relu(self.widen(x)))
        whitened: torch.Tensor = self.whiten(self.project(x))
        return whitened
