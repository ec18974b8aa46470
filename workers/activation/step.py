"""One step of the optimiser on a batch: forward, loss, gradient, Adam, and the decision of who goes on.

Its shapes stay the same and it never asks the device for a value: an image that is done keeps its place and is no
longer changed. So a GPU is given the next step while it computes this one, and can replay the step as one graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import torch
from torch.optim.adam import adam

from workers.activation.objective import Objective
from workers.extractors.base import Extractor
from workers.extractors.network import colour_std

__all__ = ["Batch", "Forward", "Schedule", "State", "Viewed", "changed", "forward", "step"]

_IMAGE_WEIGHT: Final = 0.01  # of the mean squared change of the image beside the loss of features (section 4.1)
# Of what the gradient promises, a second step brings 0.6 (ResNet-50) to 0.95 (PQ8x8): measured on 40 photographs.
_KEPT: Final = 0.6
_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8
_T = TypeVar("_T")
Viewed: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


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
        views: whether each step is for an edited view too, beside the image itself (robust mode).
        settle: an image stops once its last step brought, or was sure to bring, less than this part of all that was
            gained; 0 to go on.
    """

    steps: int
    learning_rate: float
    views: bool = False
    settle: float = 0.0


class Forward(NamedTuple):
    """What the extractor makes of B images as they are now, with the graph that leads back to ``delta``.

    ``delta`` and ``images`` are (B, 3, S, S), ``features`` (B, D) of norm 1.
    """

    delta: torch.Tensor
    images: torch.Tensor
    features: torch.Tensor


@dataclass(frozen=True)
class State:
    """What a step reads, and changes in place; the tensors keep their places in memory.

    Attributes:
        numbers: (B,) int64, the images' numbers in the whole batch.
        active: (B,) bool, which images still move.
        taken: (B,) int64, steps.
        delta, mean, square: (B, 3, S, S), the change before tanh, and Adam's moments.
        start, previous: (B,), losses at the start and before the last step; infinite before the first.
        number: (), float32, of steps that Adam took.
    """

    batch: Batch
    objective: Objective
    numbers: torch.Tensor
    active: torch.Tensor
    taken: torch.Tensor
    delta: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor
    start: torch.Tensor
    previous: torch.Tensor
    number: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, objective: Objective) -> State:
        zeros, unknown = torch.zeros_like(batch.images), torch.full_like(batch.aspects, torch.inf)
        numbers = torch.arange(len(zeros), device=zeros.device)
        active, taken = torch.ones_like(numbers, dtype=torch.bool), torch.zeros_like(numbers)
        moments = zeros.clone(), zeros.clone()
        number = torch.zeros((), device=zeros.device)
        return cls(batch, objective, numbers, active, taken, zeros, *moments, unknown, unknown.clone(), number)

    def take(self, rows: torch.Tensor) -> State:
        """Some images only, by their rows (b,); a row may be taken more than once."""
        batch, objective = self.batch.take(rows), self.objective.take(rows)
        names = [f.name for f in fields(self) if f.name not in ("batch", "objective", "number")]
        return State(batch, objective, number=self.number.clone(), **{n: getattr(self, n)[rows] for n in names})

    def clone(self) -> State:
        return _mapped(self, torch.clone)

    def copy_(self, other: State) -> None:
        """Take the values of a state of the same shapes."""
        for own, its in zip(self.tensors(), other.tensors(), strict=True):
            own.copy_(its)

    def tensors(self) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        _mapped(self, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
        return found


def forward(extractor: Extractor, batch: Batch, delta: torch.Tensor | None = None) -> Forward:
    """The features of images that are changed by tanh(delta); without a delta, of the images as they came."""
    delta = torch.zeros_like(batch.images) if delta is None else delta.detach()
    delta.requires_grad_(True)
    images = changed(batch, torch.tanh(delta))
    return Forward(delta, images, extractor.guide(images))


def changed(batch: Batch, change: torch.Tensor) -> torch.Tensor:
    """The images (B, 3, S, S) in [0, 1] as the extractor will see them with a change (B, 3, S, S) in [-1, 1]
    applied."""
    survives = batch.rows[:, None] @ change @ batch.columns[:, None].mT
    return (batch.images + batch.masks * survives).clamp(0, 1)


def step(
    state: State,
    schedule: Schedule,
    seen: Forward,
    viewed: Viewed | None = None,
    stopped: Callable[[], bool] | None = None,
) -> None:
    """Change `state` by one step from what was `seen` of it.

    Args:
        viewed: gives the features (B, D) of edited views of images (B, 3, S, S), which count as much as the images'.
        stopped: asked once it is known which images go on; the step ends there where none does.
    """
    losses = state.objective.loss(seen.features)
    _note_losses(state, losses.detach(), schedule.settle)
    if stopped is not None and stopped():
        return
    gradient = _gradient(state, seen, losses, viewed)
    before = state.delta.clone()
    _adam(state, before, gradient, schedule.learning_rate)
    state.taken.add_(state.active)
    if schedule.settle:
        state.active.logical_and_(~_settling(state, before, gradient, schedule.settle))


def _note_losses(state: State, losses: torch.Tensor, part: float) -> None:
    """An image whose last step brought too little is done."""
    state.start.copy_(torch.where(torch.isinf(state.start), losses, state.start))
    if part:
        gained = state.start - losses
        # A step that made it worse is no sign of having settled.
        state.active.logical_and_((state.previous - losses >= part * gained) | (gained <= 0))
    state.previous.copy_(losses)


def _settling(state: State, before: torch.Tensor, gradient: torch.Tensor, part: float) -> torch.Tensor:
    """Which images (B,) bool need no forward pass after the last step, from the delta `before` along its `gradient`,
    (B, 3, S, S) both.

    The change times its gradient is what the step promises. Where it is too little, a forward pass, half the time of a
    step, would only confirm it. After the first step nothing was gained that it could be compared with.
    """
    inside = torch.tanh(before)
    slope = (1 - inside.square()).clamp(min=_EPSILON)  # of tanh: the gradient is with respect to what is inside
    promised = -(gradient / slope * (torch.tanh(state.delta) - inside)).sum(dim=(1, 2, 3))
    gained, coming = state.start - state.previous, _KEPT * promised
    return (coming < part * (gained + coming)) & (gained > 0)


def _gradient(state: State, seen: Forward, losses: torch.Tensor, viewed: Viewed | None) -> torch.Tensor:
    """Of the loss with respect to delta (B, 3, S, S)."""
    images, batch = seen.images, state.batch
    if viewed:
        losses = (losses + state.objective.loss(viewed(images))) / 2
    # The paper measures the change on normalised pixel values.
    moved = ((images - batch.images) / colour_std(images.device)).square().mean(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad((_IMAGE_WEIGHT * moved + losses).sum(), seen.delta)
    return torch.where(batch.grey[:, None, None, None], gradient.mean(dim=1, keepdim=True), gradient)


def _adam(state: State, before: torch.Tensor, gradient: torch.Tensor, learning_rate: float) -> None:
    """One step of Adam (Kingma & Ba, 2015), by torch in one pass, from the delta `before` of the images that still
    move."""
    adam(
        [state.delta], [gradient], [state.mean], [state.square], [], [state.number],
        fused=True, amsgrad=False, beta1=_BETAS[0], beta2=_BETAS[1], lr=learning_rate, weight_decay=0.0,
        eps=_EPSILON, maximize=False,
    )  # fmt: skip
    torch.where(state.active[:, None, None, None], state.delta, before, out=state.delta)


def _mapped(parts: _T, change: Callable[[torch.Tensor], torch.Tensor]) -> _T:
    """A copy of a nested dataclass of tensors, each changed."""
    made: dict[str, Any] = {}
    for f in fields(parts):  # type: ignore[arg-type]
        part = getattr(parts, f.name)
        if isinstance(part, torch.Tensor):
            part = change(part)
        elif part is not None:
            part = _mapped(part, change)
        made[f.name] = part
    return type(parts)(**made)
