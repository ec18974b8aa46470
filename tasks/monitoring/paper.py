"""The paper's figures, beside which ours are shown; the only place that holds them.

Activation: Fernandez, Douze, Jégou, Furon, "Active Image Indexing", ICLR 2023, section 4. Search: the authors' talk on
that paper at ICLR 2023, whose table of indexes is the one with a latency for each. Both measure SSCD features of 512
dimensions over one million reference images of DISC21, of which ten thousand were activated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tasks.messages import ActivationOptions

__all__ = [
    "BY_EDIT", "MODES", "NO_INDEX", "OPTIMISER", "PAPER", "QUALITY", "RECALL_BY_MODE", "SEARCH", "SEARCHES",
    "USUAL_PROBES", "PaperFigure", "PaperSearch", "mode_of",
]  # fmt: skip

# Used in place of a task's name for figures of the optimiser alone, which are kept by mode instead of by stage.
OPTIMISER: Final = "optimiser"
# The same for searches, kept by nprobe: of a query of one view, which is one search.
SEARCH: Final = "search"
USUAL_PROBES: Final = "nprobe_16"
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


@dataclass(frozen=True)
class PaperSearch:
    """One row of the talk's table of indexes.

    Attributes:
        name: the index, as the talk writes it.
        nprobe: lists that were searched; 0 for an index without lists.
        ms: milliseconds a query.
        passive, activated: R@1 averaged over the fourteen edits, before and after activation.
    """

    name: str
    nprobe: int
    ms: float
    passive: float
    activated: float


NO_INDEX: Final = PaperSearch("no index", 0, 252.0, 0.99, 0.99)
_MAIN: Final = PaperSearch("IVF-PQ", 1, 0.38, 0.45, 0.75)
_SIXTEEN: Final = PaperSearch("IVF-PQ", 16, 0.42, 0.79, 0.88)
SEARCHES: Final = (
    NO_INDEX,
    _MAIN,
    _SIXTEEN,
    PaperSearch("IVF1024", 1, 0.32, 0.66, 0.89),
    PaperSearch("PCA64,LSH", 0, 0.99, 0.78, 0.86),
    PaperSearch("OPQ8x8", 0, 5.71, 0.92, 0.94),
)

_GPU: Final = "SSCD (ResNet-50 at 288 × 288) on a GPU, for each image of a batch"
PAPER: Final = (
    PaperFigure("10_steps", "Activation, 10 steps", 39.8, _GPU, OPTIMISER, TEN_STEPS),
    PaperFigure("1_step", "Activation, 1 step", 4.3, _GPU, OPTIMISER, ONE_STEP),
    PaperFigure(
        "search", "Search", _SIXTEEN.ms, "IVF4096,PQ8x8 over 1,000,000 vectors, nprobe 16", SEARCH, USUAL_PROBES
    ),
)

# R@1 of IVF4096,PQ8x8 at nprobe 1 after activation, by mode (section 4 of the paper).
RECALL_BY_MODE: Final = {TEN_STEPS: _MAIN.activated, ONE_STEP: 0.72}
# R@1 of IVF4096,PQ8x8 by edit, in the evaluation's order; by nprobe (0: no index) and whether images are activated
# (table 2 of the paper).
BY_EDIT: Final = {
    (0, False): (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.90),
    (1, False): (1, 0.73, 0.39, 0.73, 0.28, 0.62, 0.48, 0.72, 0.07, 0.14, 0.14, 0.72, 0.14, 0.13),
    (1, True): (1, 1, 0.96, 1, 0.92, 1, 0.96, 0.99, 0.10, 0.50, 0.29, 1, 0.43, 0.32),
    (16, False): (1, 1, 0.90, 1, 0.78, 0.99, 0.95, 0.99, 0.35, 0.57, 0.57, 1, 0.56, 0.39),
    (16, True): (1, 1, 1, 1, 0.98, 1, 1, 1, 0.43, 0.88, 0.75, 1, 0.84, 0.50),
}
QUALITY: Final = "PSNR 43.8 ± 2.2 dB, SSIM 0.98"  # of ten steps, mean ± standard deviation (section 4)


def mode_of(options: ActivationOptions) -> str:
    """Which of the paper's figures, if any, an activation's optimiser is to be compared with."""
    if options.robust:
        return ROBUST
    return {10: TEN_STEPS, 1: ONE_STEP}.get(options.steps, OTHER)
