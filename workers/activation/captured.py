"""Steps captured as CUDA graphs: one launch instead of some four hundred.

A graph is made for each size of batch, kind of objective and schedule, at the first need, and checked against the same
step without it. Where it cannot be captured, or gives something else, steps are taken one operation after the other.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

import torch

from workers.activation.step import Schedule, State, forward, step
from workers.extractors.base import Extractor

__all__ = ["CapturedSteps", "TakeStep"]

logger = logging.getLogger(__name__)

# Takes a step; given the forward pass where it was made already, which a captured step makes again.
TakeStep = Callable[..., None]

_MOST_GRAPHS: Final = 16
_WARMING_STEPS: Final = 3  # libraries choose their kernels and take their memory in the first of them
_TOLERANCE: Final = 0.02  # of the mean change: half precision and atomics may flip one of Adam's signs


class CapturedSteps:
    """The graphs of one extractor on a CUDA device. Used by the one thread that owns the device."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._pool = torch.cuda.graph_pool_handle()  # one for all: no two run at once, and none leaves anything in it
        self._graphs: OrderedDict[Hashable, tuple[State, torch.cuda.CUDAGraph] | None] = OrderedDict()

    def bind(self, state: State, schedule: Schedule) -> tuple[State, TakeStep] | None:
        """A state that holds the values of this one, and a call that takes a step from it; None without a graph."""
        shapes = tuple((t.shape, t.dtype) for t in state.tensors())
        present = tuple(name for name, part in vars(state.objective).items() if part is not None)
        key = (present, shapes, schedule.learning_rate, schedule.settle)
        if key not in self._graphs:
            while len(self._graphs) >= _MOST_GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[key] = self._checked(state, schedule)
        self._graphs.move_to_end(key)
        if (found := self._graphs[key]) is None:
            return None
        own, graph = found
        own.copy_(state)
        return own, lambda _seen=None: graph.replay()

    def _checked(self, state: State, schedule: Schedule) -> tuple[State, torch.cuda.CUDAGraph] | None:
        try:
            own, graph = self._capture(state.clone(), schedule)
            plain = state.clone()
            self._step(plain, schedule)
            own.copy_(state)
            graph.replay()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("A step of %d images is not captured: %s", len(state.active), error)
            return None
        difference = (torch.tanh(own.delta) - torch.tanh(plain.delta)).abs().mean()
        if not float(difference) <= _TOLERANCE:
            logger.warning("A captured step of %d images differs by %.3f: not used", len(state.active), difference)
            return None
        return own, graph

    def _capture(self, state: State, schedule: Schedule) -> tuple[State, torch.cuda.CUDAGraph]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMING_STEPS):
                self._step(state, schedule)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use the device's memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._step(state, schedule)
        return state, graph

    def _step(self, state: State, schedule: Schedule) -> None:
        step(state, schedule, forward(self._extractor, state.batch, state.delta))
