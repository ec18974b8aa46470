"""The extractor we ship: a small residual network, GeM pooling, a whitened 256-d feature of norm 1.

Shaped after SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022), at a thousandth
of its cost, so that ten optimisation steps through it are cheap on one CPU core.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["DIMENSION", "INPUT_SIZE", "CompactNet", "folded"]

INPUT_SIZE = 112
DIMENSION = 256
STEM = 32
WIDTHS = (48, 96, 192)
BLOCKS_PER_STAGE = 2
EMBEDDED = 384  # channels that GeM pools

# Colour statistics of natural photographs, as torchvision's models use them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ConvBN(nn.Module):
    """Convolution and batch norm; ``fold`` makes them one convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self.bn(self.conv(x))
        return normalised

    def fold(self) -> None:
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = nn.Identity()


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


class GeM(nn.Module):
    """Generalised-mean pooling with a learned exponent (Radenovic et al., 2018): (B, C, H, W) to (B, C)."""

    def __init__(self, p: float = 3.0, floor: float = 1e-4) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.floor = floor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The floor keeps the gradient of the power finite where a channel is zero.
        return x.clamp(min=self.floor).pow(self.p).mean((2, 3)).pow(1.0 / self.p)


class CompactNet(nn.Module):
    """Images (B, 3, S, S) in [0, 1] to features (B, 256) of norm 1; any S of at least 32 works."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.stem = ConvBN(3, STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = STEM
        for width in WIDTHS:
            for position in range(BLOCKS_PER_STAGE):
                blocks.append(Block(inputs, width, stride=2 if position == 0 else 1))
                inputs = width
        self.stages = nn.Sequential(*blocks)
        self.widen = ConvBN(inputs, EMBEDDED, 1)
        self.pool = GeM()
        self.project = nn.Linear(EMBEDDED, DIMENSION, bias=False)
        # Without a learned shift: features then have mean zero, and cannot all drift to one side of the sphere.
        self.whiten: nn.Module = nn.BatchNorm1d(DIMENSION, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = (images - self.mean) / self.std
        x = self.stages(F.relu(self.stem(x)))
        x = self.pool(F.relu(self.widen(x)))
        return F.normalize(self.whiten(self.project(x)), dim=1)


def folded(net: CompactNet) -> CompactNet:
    """``net`` itself, made ready for inference: batch norms folded, channels last, parameters without gradients."""
    net.eval()
    for module in net.modules():
        if isinstance(module, ConvBN):
            module.fold()
    if isinstance(net.whiten, nn.BatchNorm1d):
        net.project, net.whiten = _standardised(net.project, net.whiten), nn.Identity()
    return net.requires_grad_(False).to(memory_format=torch.channels_last)


def _standardised(linear: nn.Linear, norm: nn.BatchNorm1d) -> nn.Linear:
    """One linear layer for both; torch's own fusion asks for a batch norm with learned parameters."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None, "batch norms of this net track their statistics"
    assert variance is not None, "as above"
    scale = torch.rsqrt(variance + norm.eps)
    fused = nn.Linear(linear.in_features, linear.out_features).to(scale.device)
    fused.weight = nn.Parameter(linear.weight.detach() * scale[:, None])
    fused.bias = nn.Parameter(-mean * scale)
    return fused
