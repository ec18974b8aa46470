"""The optimiser: a few steps of Adam on a batch of images, through the extractor, at the extractor's size.

It is a generator that yields after every step, so that the device can serve a waiting query in between.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np
import torch

from workers.activation.objective import Objective
from workers.activation.views import edited
from workers.extractors.base import Extractor
from workers.extractors.network import IMAGENET_STD

__all__ = ["Batch", "Forward", "Optimised", "Schedule", "changed", "forward", "optimise"]

_IMAGE_WEIGHT: Final = 0.01  # of the mean squared change of the image beside the loss of features (section 4.1)
# Of what the gradient promises, a second step brings 0.6 (ResNet-50) to 0.95 (PQ8x8): measured on 40 photographs.
_KEPT: Final = 0.6
_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8


@dataclass(frozen=True)
class Batch:
    """Images of one batch, S being the extractor's input size.

    Attributes:
        images: (B, 3, S, S) float32 in [0, 1].
        masks: (B, 3, S, S) float32, how far each value may move.
        rows, columns: (B, S, S) float32, what survives of a change that is enlarged to the image's own size and shrunk
            again (:func:`workers.activation.scale.round_trip_matrix`).
        aspects: (B,) float32, width over height of the images at their own size.
        grey: (B,) bool, whose channels change alike.
    """

    images: torch.Tensor
    masks: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    aspects: torch.Tensor
    grey: torch.Tensor

    def take(self, rows: torch.Tensor) -> Batch:
        """Some images only, by their numbers (b,)."""
        return Batch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Schedule:
    """How many steps are taken, and how large they are.

    Attributes:
        steps: of Adam, at most.
        learning_rate: of Adam.
        views: edited views a step, beside the image itself (robust mode).
        settle: an image stops once its last step brought, or was sure to bring, less than this part of all that was
            gained; 0 to go on.
    """

    steps: int
    learning_rate: float
    views: int = 0
    settle: float = 0.0


class Optimised(NamedTuple):
    """For B images: ``change`` (B, 3, S, S) float32 in [-1, 1], still to be enlarged and masked at the image's own
    size, and the ``steps`` (B,) it took."""

    change: torch.Tensor
    steps: torch.Tensor


@dataclass
class _State:
    """The images that still move: their numbers in the whole batch, Adam's moments of their changes, their losses at
    the start and before the last step."""

    numbers: torch.Tensor
    batch: Batch
    objective: Objective
    delta: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor
    start: torch.Tensor
    previous: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, objective: Objective) -> _State:
        zeros, unknown = torch.zeros_like(batch.images), batch.aspects.new_full((len(batch.images),), torch.inf)
        numbers = torch.arange(len(zeros), device=zeros.device)
        return cls(numbers, batch, objective, zeros, zeros.clone(), zeros.clone(), unknown, unknown.clone())

    def leave(self, done: torch.Tensor, found: Optimised, steps: int) -> None:
        """Note what was found for those that are `done` (B,) bool after so many steps, and go on with the others."""
        if not bool(done.any()):
            return
        found.change[self.numbers[done]] = torch.tanh(self.delta[done])
        found.steps[self.numbers[done]] = steps
        rows = (~done).nonzero()[:, 0]
        self.batch, self.objective = self.batch.take(rows), self.objective.take(rows)
        for name in ("numbers", "delta", "mean", "square", "start", "previous"):
            setattr(self, name, getattr(self, name)[rows])

    def unsettled(self, losses: torch.Tensor, part: float) -> torch.Tensor:
        """Which images (B,) bool shall go on, and takes note of their losses (B,)."""
        if bool(torch.isinf(self.previous).all()):
            self.start = losses
            going_on = torch.ones_like(losses, dtype=torch.bool)
        else:
            gained = self.start - losses
            # A step that made it worse is no sign of having settled where all steps are to be taken.
            going_on = (self.previous - losses >= part * gained) | (gained <= 0) | (part == 0)
        self.previous = losses
        return going_on

    def settling(self, before: torch.Tensor, gradient: torch.Tensor, part: float) -> torch.Tensor:
        """Which images (B,) bool need no forward pass after the last step, from the delta `before` along
        its `gradient`, (B, 3, S, S) both.

        The change times its gradient is what the step promises. Where it is too little, a forward pass, half the time
        of a step, would only confirm it.
        """
        inside = torch.tanh(before.detach())
        slope = (1 - inside.square()).clamp(min=_EPSILON)  # of tanh: the gradient is with respect to what is inside
        promised = -(gradient / slope * (torch.tanh(self.delta) - inside)).sum(dim=(1, 2, 3))
        gained, coming = self.start - self.previous, _KEPT * promised
        return (coming < part * (gained + coming)) & (gained > 0)


class Forward(NamedTuple):
    """What the extractor makes of B images as they are now, with the graph that leads back to ``delta``.

    ``delta`` and ``images`` are (B, 3, S, S), ``features`` (B, D) of norm 1.
    """

    delta: torch.Tensor
    images: torch.Tensor
    features: torch.Tensor


def forward(extractor: Extractor, batch: Batch, delta: torch.Tensor | None = None) -> Forward:
    """The features of images that are changed by tanh(delta); without a delta, of the images as they came."""
    delta = torch.zeros_like(batch.images) if delta is None else delta.detach()
    delta.requires_grad_(True)
    images = changed(batch, torch.tanh(delta))
    return Forward(delta, images, extractor.guide(images))


def optimise(
    extractor: Extractor,
    batch: Batch,
    objective: Objective,
    schedule: Schedule,
    first: Forward,
    wanted: Callable[[], Sequence[bool]],
) -> Generator[None, None, Optimised]:
    """Find the change of every image; yields once a step.

    The start is zero, and no image draws anything of its own: the same image gives the same change, on every try. An
    image's neighbours in the batch do not touch it, since the loss is a sum and Adam works on each value by itself.

    Args:
        first: the forward pass of the images as they came, from which the caller chose their targets.
        wanted: asked before every step for which of the B images the change is still wanted; the others stop.
    """
    state = _State.of(batch, objective)
    found = Optimised(torch.zeros_like(batch.images), torch.full_like(state.numbers, schedule.steps))
    random = np.random.default_rng(0)
    seen = first
    for step in range(1, schedule.steps + 1):
        losses = state.objective.loss(seen.features)
        going_on = state.unsettled(losses.detach(), schedule.settle)
        going_on &= torch.tensor(wanted(), device=going_on.device)[state.numbers]
        if not bool(going_on.any()):
            state.leave(~going_on, found, step - 1)
            return found
        gradient = _gradient(extractor, state, seen, losses, schedule.views, random)[going_on]
        state.leave(~going_on, found, step - 1)
        before = state.delta
        _adam(state, gradient, step, schedule.learning_rate)
        yield
        if step > 1 and schedule.settle:
            state.leave(state.settling(before, gradient, schedule.settle), found, step)
            if not len(state.numbers):
                return found
        if step < schedule.steps:
            seen = forward(extractor, state.batch, state.delta)
    state.leave(torch.ones_like(state.numbers, dtype=torch.bool), found, schedule.steps)
    return found


def _gradient(
    extractor: Extractor, state: _State, seen: Forward, losses: torch.Tensor, views: int, random: np.random.Generator
) -> torch.Tensor:
    """Of the loss with respect to delta (B, 3, S, S)."""
    images = seen.images
    std = images.new_tensor(IMAGENET_STD)[:, None, None]  # the paper measures the change on normalised pixel values
    loss = _IMAGE_WEIGHT * ((images - state.batch.images) / std).square().mean(dim=(1, 2, 3)).sum()
    loss = loss + losses.sum() / (1 + views)
    (gradient,) = torch.autograd.grad(loss, seen.delta, retain_graph=views > 0)
    # One view after the other, and not all in one batch: activations of a view are freed before the next is made.
    for _ in range(views):
        view = state.objective.loss(extractor.guide(edited(images, state.batch.aspects, random)))
        gradient += torch.autograd.grad(view.sum() / (1 + views), seen.delta, retain_graph=True)[0]
    # Adam works on each value by itself: channels with the same gradient never part.
    return torch.where(state.batch.grey[:, None, None, None], gradient.mean(dim=1, keepdim=True), gradient)


def _adam(state: _State, gradient: torch.Tensor, step: int, learning_rate: float) -> None:
    """One step of Adam (Kingma & Ba, 2015). Not torch's, whose state belongs to a tensor of fixed shape: here images
    leave the batch on the way."""
    state.mean = torch.lerp(gradient, state.mean, _BETAS[0])
    state.square = torch.lerp(gradient.square(), state.square, _BETAS[1])
    mean, square = state.mean / (1 - _BETAS[0] ** step), state.square / (1 - _BETAS[1] ** step)
    state.delta = state.delta - learning_rate * mean / (square.sqrt() + _EPSILON)


def changed(batch: Batch, change: torch.Tensor) -> torch.Tensor:
    """The images (B, 3, S, S) in [0, 1] as the extractor will see them with a change (B, 3, S, S) in [-1, 1]
    applied."""
    survives = batch.rows[:, None] @ change @ batch.columns[:, None].mT
    return (batch.images + batch.masks * survives).clamp(0, 1)
