"""Batched edits of colour and quality; images are (B, 3, h, w) float32 in [0, 1] throughout."""

import io
import random

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import functional as tvf

from workers.extractors.geometry import chance, uniform

__all__ = ["colour", "degrade"]

LUMA = (0.299, 0.587, 0.114)


def colour(images: torch.Tensor, probability: float, spread: float, hue: float) -> torch.Tensor:
    """Brightness, contrast and saturation by factors log-uniform in [1/spread, spread], hue within ±``hue`` turns.

    Each is applied with ``probability``, in random order; one image in twenty of those is made grey.
    """
    edits = [_brightness, _contrast, _saturation]
    random.shuffle(edits)
    count, device = len(images), images.device
    span = float(torch.tensor(spread).log())
    for edit in edits:
        factor = torch.where(chance(count, probability, device), uniform(count, -span, span, device).exp(), 1.0)
        if edit is _saturation:
            factor = torch.where(chance(count, probability / 5, device), 0.0, factor)
        images = edit(images, factor.view(-1, 1, 1, 1))
    for i in chance(count, probability * 0.8, device).nonzero().flatten().tolist() if hue else ():
        images[i] = tvf.adjust_hue(images[i], random.uniform(-hue, hue))
    return images


def _brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (images * factor).clamp_(0.0, 1.0)


def _contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    mean = _grey(images).mean((2, 3), keepdim=True)
    return torch.lerp(mean, images, factor).clamp_(0.0, 1.0)


def _saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.lerp(_grey(images), images, factor).clamp_(0.0, 1.0)


def _grey(images: torch.Tensor) -> torch.Tensor:
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def degrade(images: torch.Tensor, probability: float) -> torch.Tensor:
    """Blur, lower resolution, noise and JPEG, each on about ``probability`` of the images, in place."""
    for edit in (_blur, _coarsen, _noise, _jpeg):
        chosen = chance(len(images), probability, images.device).nonzero().flatten()
        if len(chosen):
            images[chosen] = edit(images[chosen])
    return images


def _blur(images: torch.Tensor) -> torch.Tensor:
    sigma = images.shape[-1] * random.uniform(0.004, 0.027)
    kernel = 2 * int(2 * sigma + 1) + 1
    blurred: torch.Tensor = tvf.gaussian_blur(images, [kernel, kernel], [sigma, sigma])
    return blurred


def _coarsen(images: torch.Tensor) -> torch.Tensor:
    side = images.shape[-1]
    smaller = int(side * random.uniform(0.25, 0.9))
    small = F.interpolate(images, (smaller, smaller), mode="bilinear", antialias=True)
    return F.interpolate(small, (side, side), mode=random.choice(["bilinear", "nearest"]))


def _noise(images: torch.Tensor) -> torch.Tensor:
    return (images + torch.randn_like(images) * random.uniform(0.01, 0.12)).clamp_(0.0, 1.0)


def _jpeg(images: torch.Tensor) -> torch.Tensor:
    pixels = (images * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    back = np.stack([_recoded(image, random.randint(12, 85)) for image in pixels])
    return torch.from_numpy(back).permute(0, 3, 1, 2).to(images.device).float().div_(255.0)


def _recoded(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(h, w, 3) through JPEG; with Pillow, since torchvision's own coders are deprecated."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.array(Image.open(buffer, formats=("JPEG",)))
