"""The optimiser: a few steps of Adam on a batch of images, through the extractor, at the extractor's size.

It is a generator that yields after every step, so that the device thread can serve a waiting query in between.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

import torch

from workers.extractors.base import Extractor
from workers.extractors.network import IMAGENET_STD

_IMAGE_WEIGHT: Final = 0.01  # of the mean squared change of the image beside the distance of features (section 4.1)
_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8


@dataclass(frozen=True)
class Batch:
    """Images of one batch, S being the extractor's input size and D the dimension of its features.

    Attributes:
        images: (B, 3, S, S) float32 in [0, 1].
        masks: (B, 3, S, S) float32, how far each value may move: alpha times channel weight times JND.
        rows, columns: (B, S, S) float32, what survives of a change that is enlarged to the image's own size and shrunk
            again (:func:`workers.activation.scale.there_and_back`).
        targets: (B, D) float32, L2-normalised: where the features should go.
    """

    images: torch.Tensor
    masks: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor


def optimise(
    extractor: Extractor, batch: Batch, *, steps: int, learning_rate: float
) -> Generator[None, None, torch.Tensor]:
    """Find the change of every image; yields once a step.

    The start is zero, and nothing is drawn at random: the same image gives the same change, on every try. An image's
    neighbours in the batch do not touch it, since the loss is a sum and Adam works on each value by itself.

    Returns:
        (B, 3, S, S) float32 in [-1, 1]: tanh(delta), still to be enlarged and masked at the image's own size.
    """
    delta = torch.zeros_like(batch.images, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=learning_rate, betas=_BETAS, eps=_EPSILON)
    for _ in range(steps):
        adam.zero_grad(set_to_none=True)
        _loss(extractor, batch, delta).backward()  # type: ignore[no-untyped-call]
        adam.step()
        yield
    return torch.tanh(delta).detach()


def _loss(extractor: Extractor, batch: Batch, delta: torch.Tensor) -> torch.Tensor:
    images = changed(batch, torch.tanh(delta))
    cosine = (extractor(images) * batch.targets).sum(dim=1)
    std = images.new_tensor(IMAGENET_STD)[:, None, None]  # the paper measures the change on normalised pixel values
    moved = ((images - batch.images) / std).square().mean(dim=(1, 2, 3))
    return (_IMAGE_WEIGHT * moved - cosine).sum()


def changed(batch: Batch, change: torch.Tensor) -> torch.Tensor:
    """The images (B, 3, S, S) in [0, 1] as the extractor will see them with a change (B, 3, S, S) in [-1, 1]
    applied."""
    survives = batch.rows[:, None] @ change @ batch.columns[:, None].mT
    return (batch.images + batch.masks * survives).clamp(0, 1)
