"""The optimiser: a few steps of Adam on a batch of images, through the extractor, at the extractor's size.

It is a generator that yields after every step, so that the device can serve a waiting query in between.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from workers.activation.captured import CapturedSteps, TakeStep
from workers.activation.objective import Objective
from workers.activation.step import Batch, Forward, Schedule, State, Viewed, forward, step
from workers.activation.views import View, in_turn
from workers.extractors.base import Extractor

__all__ = ["PACES", "Optimised", "Pace", "Runner", "optimise"]


@dataclass(frozen=True)
class Pace:
    """How the loop follows the device.

    Attributes:
        buckets: the sizes that batches are filled up to, ascending; empty for any size, so that a batch shrinks with
            every image that is done.
        late: whether what a step decided is read after the next one was begun, so that the device never waits.
    """

    buckets: tuple[int, ...] = ()
    late: bool = False

    def size(self, images: int) -> int:
        """Of a batch for so many images; beyond the largest bucket, a multiple of it."""
        if not self.buckets:
            return images
        largest = self.buckets[-1]
        return next((bucket for bucket in self.buckets if bucket >= images), -(-images // largest) * largest)


# On a CPU a decision costs nothing to read, and no work is done for images that are done. A GPU takes hardly longer for
# a few images more, and much longer for a shape that it has never seen.
PACES: Final = {"cpu": Pace(), "cuda": Pace((1, 4, 16, 64), late=True)}


class Runner:
    """Takes steps with one extractor, at the pace of its device."""

    def __init__(self, extractor: Extractor, pace: Pace | None = None) -> None:
        self.extractor = extractor
        self.pace = pace or PACES[extractor.device.type]
        self._captured = CapturedSteps(extractor) if extractor.device.type == "cuda" else None

    def bind(self, state: State, schedule: Schedule, views: Iterator[View]) -> tuple[State, TakeStep]:
        """The state to use from now on, and a call that takes a step from it."""
        # Robust steps are not captured: each is of another view.
        if self._captured and not schedule.views and (bound := self._captured.bind(state, schedule)):
            return bound
        stopped = None if self.pace.late else lambda: not bool(state.active.any())

        def take_step(seen: Forward | None = None) -> None:
            seen = seen or forward(self.extractor, state.batch, state.delta)
            step(state, schedule, seen, self._viewed(state.batch, next(views)) if schedule.views else None, stopped)

        return state, take_step

    def _viewed(self, batch: Batch, view: View) -> Viewed:
        return lambda images: self.extractor.guide(view(images, batch.aspects))


class Optimised(NamedTuple):
    """For B images: ``change`` (B, 3, S, S) float32 in [-1, 1], still to be enlarged and masked at the image's own
    size, and the ``steps`` (B,) it took."""

    change: torch.Tensor
    steps: torch.Tensor


def optimise(
    runner: Runner,
    batch: Batch,
    objective: Objective,
    schedule: Schedule,
    wanted: Callable[[], Sequence[bool]],
    first: Forward | None = None,
) -> Generator[None, None, Optimised]:
    """Find the change of every image; yields once a step.

    The start is zero, and no image draws anything of its own: the same image gives the same change, on every try. An
    image's neighbours in the batch do not touch it, since the loss is a sum and Adam works on each value by itself.

    Args:
        wanted: asked before every step for which of the B images the change is still wanted; the others stop.
        first: the forward pass of the images as they came, where the caller has it.
    """
    moving = _Moving(runner, batch, objective, schedule)
    for number in range(schedule.steps):
        if not moving.keep(wanted()):
            break
        moving.take_step(first if number == 0 else None)
        yield
        if number + 1 < schedule.steps and not moving.shrink():
            break
    return moving.found()


class _Moving:
    """The images that still move, in a batch that shrinks to the size they need, and what was found of the others."""

    def __init__(self, runner: Runner, batch: Batch, objective: Objective, schedule: Schedule) -> None:
        self._runner, self._schedule, self._views = runner, schedule, in_turn()
        self._count = len(batch.images)
        whole = State.of(batch, objective)
        self._change, self._steps = torch.zeros_like(whole.delta), torch.zeros_like(whole.taken)
        self._numbers = list(range(self._count))
        self._use(whole, self._numbers)

    def _use(self, state: State, rows: list[int]) -> None:
        """Go on with some rows of a state, in a batch of a size that the device knows."""
        size = self._runner.pace.size(len(rows))
        self._numbers = [self._numbers[row] for row in rows]
        if size != len(state.active) or rows != list(range(size)):
            padded = rows + [rows[0]] * (size - len(rows))
            state = state.take(_indexes(padded, state))
            state.active[len(rows) :] = False
        self.state, self.take_step = self._runner.bind(state, self._schedule, self._views)
        self._late = _LateFlags(len(rows)) if self._runner.pace.late else None
        self._stopped: set[int] = set()

    def keep(self, wanted: Sequence[bool]) -> bool:
        """Stop the images that are no longer wanted; False when none is left."""
        stopped = {row for row, number in enumerate(self._numbers) if not wanted[number]}
        if stopped - self._stopped:
            flags = [row not in stopped for row in range(len(self.state.active))]
            self.state.active.logical_and_(torch.tensor(flags, device=self.state.active.device))
            self._stopped = stopped
            return self.shrink()
        return True

    def shrink(self) -> bool:
        """Leave out images that are done where the batch gets smaller by it; False when all are done."""
        flags = self._late.read(self.state.active) if self._late else self.state.active.tolist()
        going_on = [row for row in range(len(self._numbers)) if flags[row] and row not in self._stopped]
        if not going_on:
            return False
        if self._runner.pace.size(len(going_on)) < len(self.state.active):
            self._note()
            self._use(self.state, going_on)
        return True

    def found(self) -> Optimised:
        self._note()
        return Optimised(self._change[: self._count], self._steps[: self._count])

    def _note(self) -> None:
        """Note what was found so far of all images that are here."""
        numbers = self.state.numbers[: len(self._numbers)]
        self._change[numbers] = torch.tanh(self.state.delta[: len(numbers)])
        self._steps[numbers] = self.state.taken[: len(numbers)]


class _LateFlags:
    """Reads flags (B,) bool as they were a step ago, without waiting for the step that the device is at.

    Flags only ever change to False, so reading them late costs at most a step, and changes no result.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._copied: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def read(self, flags: torch.Tensor) -> list[bool]:
        before, self._copied = self._copied, self._copy(flags)
        if before is None:
            return [True] * self._count
        copy, event = before
        if event is not None:
            event.synchronize()
        return copy.tolist()  # type: ignore[no-any-return]

    @staticmethod
    def _copy(flags: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        if not flags.is_cuda:
            return flags.clone(), None
        copy = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
        copy.copy_(flags, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return copy, event


def _indexes(rows: list[int], state: State) -> torch.Tensor:
    return torch.tensor(rows, device=state.active.device)
