"""What activation lowers: how badly a feature fits a code, in the terms of the code's index family.

The paper's objectives (Fernandez et al., section 3.2 and appendix): for PQ, OPQ and IVF-PQ the distance to what the
code is reconstructed to, for hyperplanes (LSH) the signed distances to them. We add a margin between coarse cells: a
copy whose feature falls into a neighbour's cell is lost whatever its distance, and that is how most copies are lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F

from workers.index.codec.target import Target

__all__ = ["Objective"]

# Weight of the cells beside the cosine, and the squared distance that counts as one step of preference between two
# cells. Measured on 100 photographs at 37.7 dB (IVF512,PQ8x8, nprobe 1): R@1 0.70 without; 0.755 at (0.05, 0.05),
# 0.779 at (0.1, 0.05), 0.776 at (0.1, 0.1), 0.769 at (0.2, 0.1), 0.751 at (0.1, 0.2).
_CELL_WEIGHT: Final = 0.1
_CELL_TEMPERATURE: Final = 0.05
# Signed distances beyond this need no more pushing: features have norm 1, so edits rarely move a projection further.
_SIGN_MARGIN: Final = 0.25
_SHARED: Final = ("matrix", "offset")


@dataclass(frozen=True)
class Objective:
    """The targets of B images on the device; :class:`~workers.index.codec.target.Target` has their shapes, except that
    one `matrix` (T, D) and one `offset` (T,) serve all images."""

    points: torch.Tensor | None
    signs: torch.Tensor | None
    cells: torch.Tensor | None
    matrix: torch.Tensor | None
    offset: torch.Tensor | None

    @classmethod
    def of(cls, target: Target, device: torch.device) -> Objective:
        parts = {name: part for name, part in vars(target).items() if part is not None}
        parts |= {name: parts[name][0] for name in _SHARED if name in parts}
        on_device = {name: torch.from_numpy(part).to(device, non_blocking=True) for name, part in parts.items()}
        return cls(**(dict.fromkeys(vars(target)) | on_device))

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """(B,) float32: the lower, the better do features (B, D) of norm 1 fit their codes."""
        total = features.new_zeros(len(features))
        if self.points is not None:
            total = total - F.cosine_similarity(features, self.points)
        if self.signs is not None:
            total = total + F.relu(_SIGN_MARGIN - self.signs * self._in_index(features)).mean(dim=1) / _SIGN_MARGIN
        if self.cells is not None:
            distances = (self._in_index(features)[:, None] - self.cells).square().sum(dim=2)
            total = total - _CELL_WEIGHT * F.log_softmax(-distances / _CELL_TEMPERATURE, dim=1)[:, 0]
        return total

    def take(self, rows: torch.Tensor) -> Objective:
        """Those of some images only, by their numbers (b,)."""
        return Objective(
            **{name: part if part is None or name in _SHARED else part[rows] for name, part in vars(self).items()}
        )

    def _in_index(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, D) in the space of the index (B, T)."""
        if self.matrix is None or self.offset is None:
            return features
        return features @ self.matrix.T + self.offset
