"""The rule by which a published image counts as verified: how its feature fits the registered code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workers.activation.objective import Objective
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.codec.target import Target

__all__ = ["CodeFit", "is_verified"]


@dataclass(frozen=True)
class CodeFit:
    """How a feature fits a registered code.

    Attributes:
        distance: what a search compares: squared L2 to the code's reconstruction, or Hamming's.
        loss: what the optimiser lowers; see :class:`workers.activation.objective.Objective`.
        in_cell: the feature lies in the code's coarse cell, so that a search with nprobe 1 reaches the code at all.
        on_code: the feature would be given the very same code.
    """

    distance: float
    loss: float
    in_cell: bool
    on_code: bool

    @classmethod
    def of(cls, feature: Features, code: Codes, target: Target, codec: Codec) -> CodeFit:
        """The fit of one feature (D,) to a code (code_size,) and to its target (N = 1)."""
        own, cell = codec.encode(feature[None])[0], codec.cell_size
        objective = Objective.of(target, torch.device("cpu"))
        return cls(
            distance=target.distance(feature),
            loss=float(objective.loss(torch.from_numpy(feature[None]))[0]),
            in_cell=bool(np.array_equal(own[:cell], code[:cell])),
            on_code=bool(np.array_equal(own, code)),
        )


def is_verified(original: CodeFit, published: CodeFit) -> bool:
    """Whether a published image lies in the code's cell and fits the code better than its original does.

    Equality of the whole code would refuse changes that help: a search compares a query's feature with the registered
    code's reconstruction, and never computes the query's own code.
    """
    return published.in_cell and published.loss < original.loss
