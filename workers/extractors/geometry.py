"""Batched geometric edits: a chain of affine maps, sampled from the picture only once.

Coordinates are normalised as in ``grid_sample``: a canvas spans [-1, 1] in x and y whatever its shape. Each step maps
the coordinates of the canvas it makes to those of the canvas it was given; what falls outside the latter shows the
step's backdrop. Aspect ratios (B,) are tracked beside the maps, because a rotation of a squashed square needs them.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Chain", "chance", "uniform"]


def uniform(count: int, low: float, high: float, device: torch.device) -> torch.Tensor:
    """(count,) float32 drawn from [low, high)."""
    return torch.rand(count, device=device) * (high - low) + low


def chance(count: int, probability: float, device: torch.device) -> torch.Tensor:
    """(count,) bool, each true with the probability."""
    return torch.rand(count, device=device) < probability


@dataclass(frozen=True)
class Step:
    """One map (B, 3, 3) to the previous canvas, and what is seen outside of it, (B, 3, h, w) in [0, 1]."""

    matrix: torch.Tensor
    backdrop: torch.Tensor | None = None


class Chain:
    """The edits of one batch, in the order in which they are applied to the pictures."""

    def __init__(self, aspects: torch.Tensor) -> None:
        self.aspects = aspects
        self.steps: list[Step] = []

    def crop(self, half: torch.Tensor, centre: torch.Tensor) -> None:
        """Keep the window of half sizes ``half`` (B, 2) around ``centre`` (B, 2), as (x, y)."""
        self.steps.append(Step(_matrix(half[:, 0], half[:, 1], centre)))
        self.aspects = self.aspects * half[:, 0] / half[:, 1]

    def mirror(self, across: torch.Tensor) -> None:
        """Flip left and right where ``across`` (B,) is true."""
        sign = 1.0 - 2.0 * across.float()
        self.steps.append(Step(_matrix(sign, torch.ones_like(sign), torch.zeros(len(sign), 2, device=sign.device))))

    def rotate(self, degrees: torch.Tensor, expand: torch.Tensor, backdrop: torch.Tensor) -> None:
        """Rotate by ``degrees`` (B,), on a larger canvas where ``expand`` (B,) is true."""
        cos, sin = torch.cos(degrees * math.pi / 180), torch.sin(degrees * math.pi / 180)
        old_w, old_h = self.aspects.sqrt(), self.aspects.rsqrt()
        new_w = torch.where(expand, cos.abs() * old_w + sin.abs() * old_h, old_w)
        new_h = torch.where(expand, sin.abs() * old_w + cos.abs() * old_h, old_h)
        matrix = torch.zeros(len(degrees), 3, 3, device=degrees.device)
        matrix[:, 0, 0], matrix[:, 0, 1] = cos * new_w / old_w, -sin * new_h / old_w
        matrix[:, 1, 0], matrix[:, 1, 1] = sin * new_w / old_h, cos * new_h / old_h
        matrix[:, 2, 2] = 1.0
        self.steps.append(Step(matrix, backdrop))
        self.aspects = new_w / new_h

    def place(self, half: torch.Tensor, centre: torch.Tensor, backdrop: torch.Tensor) -> None:
        """Squash the picture into the window of half sizes ``half`` around ``centre``, both (B, 2), of a new canvas."""
        self.steps.append(Step(_matrix(1 / half[:, 0], 1 / half[:, 1], -centre / half), backdrop))
        self.aspects = self.aspects / half[:, 0] * half[:, 1]

    def render(self, pictures: torch.Tensor, side: int) -> torch.Tensor:
        """The edited batch (B, 3, side, side) of ``pictures`` (B, 3, h, w)."""
        axis = (torch.arange(side, device=pictures.device) + 0.5) * (2.0 / side) - 1.0
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        at = torch.stack([columns, rows], dim=-1).view(1, side * side, 2).expand(len(pictures), -1, -1)
        covered = torch.zeros(len(pictures), 1, side, side, dtype=torch.bool, device=pictures.device)
        shown = torch.zeros(len(pictures), 3, side, side, device=pictures.device)
        for step in reversed(self.steps):
            outer = at
            at = _mapped(at, step.matrix)
            if step.backdrop is not None:
                outside = (at.abs() > 1.0).any(dim=2).view(covered.shape) & ~covered
                shown = torch.where(outside, _sampled(step.backdrop, outer, side), shown)
                covered = covered | outside
        return torch.where(covered, shown, _sampled(pictures, at, side))


def _matrix(scale_x: torch.Tensor, scale_y: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    matrix = torch.zeros(len(shift), 3, 3, device=shift.device)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = scale_x, scale_y, 1.0
    matrix[:, :2, 2] = shift
    return matrix


def _mapped(at: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Coordinates (B, N, 2) through ``matrix`` (B, 3, 3); written out, since a batched 2x2 product is slow."""
    x, y = at[..., 0], at[..., 1]
    m = matrix[..., None]
    return torch.stack([m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in (0, 1)], dim=-1)


def _sampled(pictures: torch.Tensor, at: torch.Tensor, side: int) -> torch.Tensor:
    if pictures.shape[-1] == 1:  # one colour: nothing to sample
        return pictures.expand(-1, -1, side, side)
    grid = at.view(len(pictures), side, side, 2)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
