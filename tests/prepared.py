"""The extractor `compact`, prepared when this module is imported: by the process that workers are forked from.

Preparing and warming it take most of the time that a worker needs to start, and come to the same each time. Threads and
a GPU's context do not survive a fork: where there are such, each worker prepares its own, as it does outside of tests.
"""

from __future__ import annotations

from typing import Any

import torch

import workers.main
from workers.activation.engine import Engine
from workers.extractors.registry import load_extractor
from workers.images.compiled import load_kernels

__all__ = ["use_prepared", "warm_as_usual"]

_CPU = torch.device("cpu")
_COMPACT = None if torch.cuda.is_available() or torch.get_num_threads() > 1 else load_extractor("compact", _CPU)
_WARM = Engine.warm
load_kernels()


def use_prepared() -> None:
    """Let a worker in this process take it, where it would load and prepare the same."""

    def load(name: str, device: torch.device, store: Any = None, *, precision: str = "auto") -> Any:
        if _COMPACT and (name, device, precision) == ("compact", _CPU, "auto"):
            return _COMPACT
        return load_extractor(name, device, store, precision=precision)

    def warm(self: Engine, *given: Any) -> int | None:
        return None if self.extractor is _COMPACT else _WARM(self, *given)

    workers.main.load_extractor = load  # type: ignore[attr-defined]
    Engine.warm = warm  # type: ignore[method-assign]


def warm_as_usual() -> None:
    """Let the worker in this process find out how many images its device has memory for."""
    Engine.warm = _WARM  # type: ignore[method-assign]
