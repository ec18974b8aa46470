"""What indexes were measured to find, by bytes: the table that `aii index plan` and `aii index build` choose from.

``frontier.json`` is what ``python -m tests.benchmarks.frontier … --json workers/index/codec/frontier.json`` wrote.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from tasks.messages import USUAL_NPROBE, Frozen

__all__ = [
    "CELL_BYTES", "Measured", "best_measured", "measured_setting", "other_measured", "product_family",
    "rotated_dimensions",
]  # fmt: skip

_TABLE: Final = Path(__file__).with_name("frontier.json")
CELL_BYTES: Final = 2  # of a cell's number, of up to 65,536 cells
# How many dimensions a rotation leaves for each byte of a code, at most.
_DIMENSIONS_PER_BYTE: Final = 8


class Measured(Frozen):
    """R@1 of an index over the fourteen edits, with its 95 % interval; `bytes` of a code with its cell's number."""

    factory: str
    bytes: int
    nprobe: int
    activated: bool
    recall: float
    low: float
    high: float
    ms: float
    psnr_db: float | None = None

    @property
    def rotated(self) -> bool:
        """Whether features are rotated before the cells."""
        return self.factory.startswith("OPQ")


def measured_setting() -> str:
    """On what the table was measured, in words."""
    return str(_table()["setting"])


def best_measured(max_bytes: int, nprobe: int = USUAL_NPROBE) -> Measured | None:
    """The index of the highest R@1 of activated images within `max_bytes`; None where none is so small.

    Only of codes that a search compares by looking up a distance for each byte: residual codes (RQ) take 15 times as
    long to compare.
    """
    within = [row for row in _products(nprobe) if row.bytes <= max_bytes]
    return max(within, key=lambda row: row.recall, default=None)


def other_measured(best: Measured) -> Measured | None:
    """The best index of as many bytes with a rotation where `best` has none, and the other way round."""
    others = (row for row in _products(best.nprobe) if row.bytes == best.bytes and row.rotated != best.rotated)
    return max(others, key=lambda row: row.recall, default=None)


def product_family(dimension: int, parts: int, cells: int, nprobe: int = USUAL_NPROBE) -> str:
    """The factory string of `cells` and a product code of `parts` bytes for features of `dimension` numbers, rotated or
    not, as was measured to find more within so many bytes at that nprobe."""
    best = best_measured(parts + CELL_BYTES, nprobe)
    if best and not best.rotated and dimension % parts == 0:
        return f"IVF{cells},PQ{parts}x8"
    return f"OPQ{parts}_{rotated_dimensions(dimension, parts)},IVF{cells},PQ{parts}x8"


def rotated_dimensions(dimension: int, parts: int) -> int:
    """How many dimensions a rotation leaves for a code of so many parts."""
    return min(_DIMENSIONS_PER_BYTE, dimension // parts) * parts


def _products(nprobe: int) -> list[Measured]:
    """At the largest number of cells that was measured and is not more than `nprobe`."""
    rows = [row for row in _rows() if row.activated and ",PQ" in row.factory and row.nprobe <= nprobe]
    most = max((row.nprobe for row in rows), default=0)
    return [row for row in rows if row.nprobe == most]


def _rows() -> list[Measured]:
    return [Measured.model_validate(row) for row in _table()["rows"]]


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text("utf-8"))
    return table
