"""The optimiser: a few steps of Adam on a batch of images, through the extractor, at the extractor's size.

It is a generator that yields after every step, so that the device thread can serve a waiting query in between.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch

from workers.activation.objective import Objective
from workers.activation.views import edited
from workers.extractors.base import Extractor
from workers.extractors.network import IMAGENET_STD

__all__ = ["Batch", "Schedule", "changed", "optimise"]

_IMAGE_WEIGHT: Final = 0.01  # of the mean squared change of the image beside the misfit of features (section 4.1)
_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8


@dataclass(frozen=True)
class Batch:
    """Images of one batch, S being the extractor's input size.

    Attributes:
        images: (B, 3, S, S) float32 in [0, 1].
        masks: (B, 3, S, S) float32, how far each value may move.
        rows, columns: (B, S, S) float32, what survives of a change that is enlarged to the image's own size and shrunk
            again (:func:`workers.activation.scale.there_and_back`).
        aspects: (B,) float32, width over height of the images at their own size.
    """

    images: torch.Tensor
    masks: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    aspects: torch.Tensor

    def take(self, rows: torch.Tensor) -> Batch:
        """Some images only, by their numbers (b,)."""
        return Batch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Schedule:
    """How long and how hard: Adam's steps and learning rate; ``views`` edited views a step (robust mode); an image
    stops early once its misfit is below ``enough``."""

    steps: int
    learning_rate: float
    views: int = 0
    enough: float = -np.inf


@dataclass
class _State:
    """The images that still move: their numbers in the whole batch, and Adam's moments of their changes."""

    numbers: torch.Tensor
    batch: Batch
    objective: Objective
    delta: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some images only."""
        self.batch, self.objective = self.batch.take(rows), self.objective.take(rows)
        self.numbers, self.delta = self.numbers[rows], self.delta[rows]
        self.mean, self.square = self.mean[rows], self.square[rows]


def optimise(
    extractor: Extractor, batch: Batch, objective: Objective, schedule: Schedule
) -> Generator[None, None, torch.Tensor]:
    """Find the change of every image; yields once a step.

    The start is zero, and no image draws anything of its own: the same image gives the same change, on every try. An
    image's neighbours in the batch do not touch it, since the loss is a sum and Adam works on each value by itself.

    Returns:
        (B, 3, S, S) float32 in [-1, 1]: tanh(delta), still to be enlarged and masked at the image's own size.
    """
    zeros = torch.zeros_like(batch.images)
    found = zeros.clone()
    state = _State(torch.arange(len(zeros), device=zeros.device), batch, objective, zeros, zeros.clone(), zeros.clone())
    random = np.random.default_rng(0)
    for step in range(1, schedule.steps + 1):
        gradient, misfits = _gradient(extractor, state, schedule.views, random)
        unsettled = (misfits > schedule.enough).nonzero()[:, 0]
        if len(unsettled) < len(misfits):
            found[state.numbers] = state.delta
            state.keep(unsettled)
            gradient = gradient[unsettled]
        if not len(unsettled):
            break
        _adam(state, gradient, step, schedule.learning_rate)
        yield
    found[state.numbers] = state.delta
    return torch.tanh(found)


def _adam(state: _State, gradient: torch.Tensor, step: int, learning_rate: float) -> None:
    """One step of Adam (Kingma & Ba, 2015). Not torch's, whose state belongs to a tensor of fixed shape: here images
    leave the batch on the way."""
    state.mean = torch.lerp(gradient, state.mean, _BETAS[0])
    state.square = torch.lerp(gradient.square(), state.square, _BETAS[1])
    mean, square = state.mean / (1 - _BETAS[0] ** step), state.square / (1 - _BETAS[1] ** step)
    state.delta = state.delta - learning_rate * mean / (square.sqrt() + _EPSILON)


def _gradient(
    extractor: Extractor, state: _State, views: int, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the loss with respect to delta (B, 3, S, S), and the misfit (B,) of the images as they are now."""
    delta = state.delta.detach().requires_grad_(True)
    images = changed(state.batch, torch.tanh(delta))
    misfits = state.objective.misfit(extractor(images))
    std = images.new_tensor(IMAGENET_STD)[:, None, None]  # the paper measures the change on normalised pixel values
    loss = _IMAGE_WEIGHT * ((images - state.batch.images) / std).square().mean(dim=(1, 2, 3)).sum()
    loss = loss + misfits.sum() / (1 + views)
    # One view after the other, and not all in one batch: activations of a view are freed before the next is made.
    (gradient,) = torch.autograd.grad(loss, delta, retain_graph=views > 0)
    for _ in range(views):
        view = edited(images, state.batch.aspects, random)
        gradient = (
            gradient
            + torch.autograd.grad(
                state.objective.misfit(extractor(view)).sum() / (1 + views), delta, retain_graph=True
            )[0]
        )
    return gradient, misfits.detach()


def changed(batch: Batch, change: torch.Tensor) -> torch.Tensor:
    """The images (B, 3, S, S) in [0, 1] as the extractor will see them with a change (B, 3, S, S) in [-1, 1]
    applied."""
    survives = batch.rows[:, None] @ change @ batch.columns[:, None].mT
    return (batch.images + batch.masks * survives).clamp(0, 1)
