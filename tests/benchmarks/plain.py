"""The plain loop, written straight from the paper's formula: what the engine is measured against.

I = I_o + alpha * H_JND(I_o) * tanh(delta) at the image's own size, delta by Adam through the unprepared float32 network
behind a resize; one image at a time; loss = -cos(f(I), target) + 0.01 * MSE (sections 3.2, 3.3 and 4.1).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from workers.activation.jnd import CHANNEL_WEIGHTS, jnd_map
from workers.extractors.network import IMAGENET_MEAN, IMAGENET_STD
from workers.images.tensors import luminance
from workers.index.codec.codec import Codec


class PlainLoop:
    """`net` takes colour-normalised squares of `side` pixels and gives embeddings of any norm."""

    def __init__(self, net: nn.Module, side: int, codec: Codec, device: torch.device) -> None:
        self.net = net.to(device).eval()
        for parameter in self.net.parameters():  # a TorchScript module knows no requires_grad_ of its own
            parameter.requires_grad_(False)
        self._side = side
        self._codec = codec
        self._device = device
        self._mean, self._std = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))

    def activate(self, pixels: np.ndarray, steps: int, alpha: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
        """The changed image (H, W, 3) uint8 of an image of that shape, and its code (code_size,)."""
        planes = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)).to(self._device)
        image = planes[None] / 255
        weights = alpha * torch.tensor(CHANNEL_WEIGHTS, device=self._device)[:, None, None]
        mask = weights * torch.from_numpy(jnd_map(luminance(pixels))).to(self._device)
        with torch.no_grad():
            feature = self._features(image).cpu().numpy()
        code = self._codec.encode(feature)
        target = torch.from_numpy(self._codec.decode(code)).to(self._device)
        delta = torch.zeros_like(image, requires_grad=True)
        adam = torch.optim.Adam([delta], lr=10.0 / steps)
        for _ in range(steps):
            changed = (image + mask * torch.tanh(delta)).clamp(0, 1)
            loss = -F.cosine_similarity(self._features(changed), target).sum()
            loss = loss + 0.01 * ((changed - image) / self._std).square().mean()
            adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        with torch.no_grad():
            changed = (image + mask * torch.tanh(delta)).clamp(0, 1)
            rounded = (changed[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
        return rounded.cpu().numpy(), code[0]

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        square = F.interpolate(images, (self._side, self._side), mode="bilinear", antialias=True)
        return F.normalize(self.net((square - self._mean) / self._std), dim=1)
