"""The paper's latencies, beside which ours are shown; the only place that holds them.

Fernandez, Douze, Jégou, Furon, "Active Image Indexing", ICLR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tasks.messages import ActivationOptions
from tasks.names import TASK_QUERY

__all__ = ["MODES", "OPTIMISER", "PAPER", "PaperFigure", "mode_of"]

# Stands for a task where figures are kept: the optimiser alone, by what it was asked instead of by stage.
OPTIMISER: Final = "optimiser"
TEN_STEPS, ONE_STEP, ROBUST, OTHER = MODES = ("10_steps", "1_step", "robust", "other")


@dataclass(frozen=True)
class PaperFigure:
    """One latency of the paper, how it was measured, and where our own figure for the same is kept."""

    name: str
    title: str
    ms: float
    setting: str
    task: str
    stage: str


_GPU: Final = "SSCD (ResNet-50 at 288 × 288) on a GPU, for each image of a batch"
PAPER: Final = (
    PaperFigure("10_steps", "Activation, 10 steps", 39.8, _GPU, OPTIMISER, TEN_STEPS),
    PaperFigure("1_step", "Activation, 1 step", 4.3, _GPU, OPTIMISER, ONE_STEP),
    PaperFigure("search", "Search", 0.38, "IVF4096,PQ8x8 over 1,000,000 vectors, nprobe 1", TASK_QUERY, "search"),
)


def mode_of(options: ActivationOptions) -> str:
    """Which of the paper's figures, if any, an activation's optimiser is to be compared with."""
    if options.robust:
        return ROBUST
    return {10: TEN_STEPS, 1: ONE_STEP}.get(options.steps, OTHER)
