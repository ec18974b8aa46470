"""What one training run is told. Imports no torch, so that the command line can read the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.images import Limits

__all__ = ["TrainingSettings"]


@dataclass(frozen=True)
class TrainingSettings:
    """One training run.

    Attributes:
        images: folders and tar files of images.
        out: the weights file to write.
        minutes: of training, whatever the machine.
        limits: what is decoded of the images, as in a worker.
        command: what was typed, for the record beside the weights.
        hold_out: every K-th image of each folder is not trained on; 0 holds none out.
        fine_tune: weights to start from; None starts from random ones.
        memory: features of earlier batches that serve as negatives.
        large_share: part of each batch that comes from sets of photographs, the rest from sets of thumbnails.
        ema_decay: of the averaged weights, which are the ones written.
    """

    images: tuple[Path, ...]
    out: Path
    minutes: float
    limits: Limits
    command: str = ""
    seed: int = 0
    hold_out: int = 0
    batch: int = 64
    fine_tune: Path | None = None
    peak_lr: float = 1e-3
    weight_decay: float = 0.05
    temperature: float = 0.05
    entropy_weight: float = 1.0
    memory: int = 16384
    large_share: float = 0.3
    ema_decay: float = 0.998

    @property
    def curve(self) -> Path:
        return self.out.with_suffix(".csv")

    @property
    def checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint.pt")

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a run writes."""
        return self.out, self.out.with_suffix(".json"), self.curve, self.checkpoint
