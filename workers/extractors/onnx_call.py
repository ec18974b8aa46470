"""One node of an ONNX graph, as its operator sees it, and as a module of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

__all__ = ["BATCH", "Apply", "Call", "Operator", "Unsupported", "of_first"]

BATCH: Final = -1  # what `Shape` gives for the number of images, which is not known


class Unsupported(ValueError):
    """The operator is used in a way that cannot be computed here."""


@dataclass(frozen=True)
class Call:
    """One node of the graph.

    Attributes:
        op: the operator's name.
        attributes: the node's, as Python values; tensors as torch's.
        inputs: constants; for what is computed, a tensor on torch's `meta` device that has its shape; None if left out.
        fixed_batch: number of images that the file was exported for, if it names one.
    """

    op: str
    attributes: Mapping[str, Any]
    inputs: Sequence[torch.Tensor | None]
    fixed_batch: int | None = None

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def shape(self, index: int = 0) -> list[int]:
        return list(self._input(index).shape)

    def is_computed(self, index: int) -> bool:
        return self.has(index) and self._input(index).is_meta

    def constant(self, index: int) -> torch.Tensor:
        """The input, which has to be known before any image is."""
        if not self.has(index) or self.is_computed(index):
            raise Unsupported(f"its input {index + 1} has to be a constant")
        return self._input(index)

    def ints(self, name: str, index: int) -> list[int] | None:
        """What older versions of an operator have as attribute `name`, and newer ones as an input."""
        if self.has(index):
            return [int(v) for v in self.constant(index).flatten().tolist()]
        value = self.attributes.get(name)
        return None if value is None else [int(v) for v in (value if isinstance(value, list) else [value])]

    def number(self, name: str, index: int) -> float | None:
        if self.has(index):
            return float(self.constant(index))
        value = self.attributes.get(name)
        return None if value is None else float(value)

    def _input(self, index: int) -> torch.Tensor:
        value = self.inputs[index]
        assert value is not None
        return value


class Apply(nn.Module):
    """A function of a node's inputs: constants are buffers, and lone numbers beside computed inputs plain numbers."""

    def __init__(self, function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor | None], **options: Any):
        super().__init__()
        self.function, self.options = function, options
        self.arguments: list[str | float | None] = []
        computes = any(value is not None and value.is_meta for value in inputs)
        for i, value in enumerate(inputs):
            if value is None or value.is_meta:
                self.arguments.append(None)
            elif value.ndim == 0 and computes:
                self.arguments.append(value.item())
            else:
                self.register_buffer(f"constant_{i}", value)
                self.arguments.append(f"constant_{i}")

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but the function, of inputs that are all computed."""
        return not self.options and all(argument is None for argument in self.arguments)

    def forward(self, *computed: torch.Tensor) -> torch.Tensor:
        given = iter(computed)
        values = [next(given) if a is None else getattr(self, a) if isinstance(a, str) else a for a in self.arguments]
        return self.function(*values, **self.options)


Operator = Callable[[Call], "nn.Module | torch.Tensor"]


def of_first(function: Callable[..., torch.Tensor], call: Call, **options: Any) -> nn.Module:
    """The function of the first input; the others have become options."""
    return Apply(function, call.inputs[:1], **options)
