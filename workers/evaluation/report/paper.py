"""The paper's figure for each of ours; the figures themselves are in :mod:`tasks.monitoring.paper`."""

from __future__ import annotations

from typing import Final

from tasks.monitoring.paper import BY_EDIT, NO_INDEX, PAPER, RECALL_BY_MODE, SEARCHES, PaperSearch

__all__ = ["average_by_edit", "code_bytes", "main_search", "same_kind", "variant_figures"]

# The first and the last part of a factory string, without numbers, to the name in the authors' table.
_KINDS: Final = {"IVF,Flat": "IVF1024", "OPQ,PQ": "OPQ8x8", "PCA,LSH": "PCA64,LSH"}
_MODES: Final = {"10 steps": "10_steps", "1 step": "1_step"}


def main_search(nprobe: int) -> PaperSearch:
    """The row of IVF4096,PQ8x8 at nprobe 1 or 16; the one without an index for 0."""
    return next(row for row in SEARCHES if row.name in (NO_INDEX.name, "IVF-PQ") and row.nprobe == nprobe)


def code_bytes(nprobe: int) -> int:
    """Bytes of a vector in that row: eight of a code, or 512 float32 values."""
    return 8 if nprobe else 4 * 512


def average_by_edit(nprobe: int, activated: bool) -> float:
    """R@1 over the fourteen edits."""
    figures = BY_EDIT[nprobe, activated]
    return sum(figures) / len(figures)


def same_kind(factory: str) -> PaperSearch | None:
    """The authors' index of the same kind as one of ours, by its factory string."""
    first, _, last = factory.partition(",")
    kind = f"{first.rstrip('0123456789_')},{last.rstrip('0123456789x')}"
    return next((row for row in SEARCHES if row.name == _KINDS.get(kind)), None)


def variant_figures(variant: str) -> tuple[float, float] | None:
    """R@1 and milliseconds an image of the same activation options."""
    mode = _MODES.get(variant)
    return None if mode is None else (RECALL_BY_MODE[mode], next(row.ms for row in PAPER if row.name == mode))
