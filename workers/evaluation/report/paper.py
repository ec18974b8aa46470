"""The paper's figures, beside which ours stand: Fernandez, Douze, Jégou, Furon, "Active Image Indexing", ICLR 2023.

SSCD features of 512 dimensions; one million references of DISC21, of which ten thousand were activated. Each row of
BY_EDIT averages to the figure that the paper's main table gives for it. Latencies that Flower shows as well are kept in
:mod:`tasks.monitoring.paper`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tasks.monitoring.paper import PAPER

__all__ = ["BY_EDIT", "QUALITY", "SEARCHES", "WAYS", "PaperOther", "average", "other"]

_MS: Final = {figure.name: figure.ms for figure in PAPER}
NO_INDEX: Final = (0, False)

# R@1 of IVF4096,PQ8x8 by edit, in the order of EDITS; by nprobe (0: no index) and whether images are activated.
BY_EDIT: Final = {
    NO_INDEX: (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.90),
    (1, False): (1, 0.73, 0.39, 0.73, 0.28, 0.62, 0.48, 0.72, 0.07, 0.14, 0.14, 0.72, 0.14, 0.13),
    (1, True): (1, 1, 0.96, 1, 0.92, 1, 0.96, 0.99, 0.10, 0.50, 0.29, 1, 0.43, 0.32),
    (16, False): (1, 1, 0.90, 1, 0.78, 0.99, 0.95, 0.99, 0.35, 0.57, 0.57, 1, 0.56, 0.39),
    (16, True): (1, 1, 1, 1, 0.98, 1, 1, 1, 0.43, 0.88, 0.75, 1, 0.84, 0.50),
}
# Milliseconds and bytes, by nprobe.
SEARCHES: Final = {0: (252.0, 2048), 1: (_MS["search"], 8), 16: (0.42, 8)}
# R@1 and milliseconds an image, on a GPU.
WAYS: Final = {"10 steps": (0.75, _MS["10_steps"]), "1 step": (0.72, _MS["1_step"])}
QUALITY: Final = "PSNR 43.8 ± 2.2 dB, SSIM 0.98"


class PaperOther(NamedTuple):
    """R@1 of another index at nprobe 1, before and after activation, and milliseconds a search."""

    name: str
    passive: float
    activated: float
    ms: float


# By the last part of a factory string that names the kind.
OTHERS: Final = {
    "IVF,Flat": PaperOther("IVF1024", 0.47, 0.83, 0.32),
    "OPQ,PQ": PaperOther("OPQ8x8", 0.92, 0.94, 5.7),
    "PCA,LSH": PaperOther("PCA64,LSH", 0.72, 0.83, 0.99),
}


def average(nprobe: int, activated: bool) -> float:
    """R@1 over the fourteen edits."""
    figures = BY_EDIT[nprobe, activated]
    return sum(figures) / len(figures)


def other(factory: str) -> PaperOther | None:
    """The paper's index of the same kind."""
    first, _, last = factory.partition(",")
    kind = f"{first.rstrip('0123456789_')},{last.rstrip('0123456789x')}"
    return OTHERS.get(kind)
