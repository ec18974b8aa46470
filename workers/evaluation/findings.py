"""What an evaluation found, and its CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from workers.evaluation.detection import Detection
from workers.evaluation.published import Published
from workers.evaluation.verdicts import VerdictRow
from workers.images.edits import EDITS

__all__ = ["Findings", "RecallRow", "SearchRow", "VariantRow", "variant_row", "write_tables"]


@dataclass(frozen=True)
class RecallRow:
    """R@1 by edit of one index; `nprobe` is 0 where every entry is compared, `images` is the number of photographs."""

    index: str
    nprobe: int
    activated: bool
    images: int
    by_edit: Mapping[str, float]

    @property
    def average(self) -> float:
        """Over the fourteen edits; more edits do not count."""
        return float(np.mean([self.by_edit[edit] for edit in EDITS]))


@dataclass(frozen=True)
class SearchRow:
    """What a search costs: milliseconds for one query on one thread, one after the other (timings: they differ from run
    to run)."""

    index: str
    nprobe: int
    vectors: int
    ms_per_query: float
    bytes_per_vector: int


@dataclass(frozen=True)
class VariantRow:
    """One set of activation options, on the main index at nprobe 1; `verified` is a share, `ms_per_image` a timing."""

    variant: str
    alpha: float
    images: int
    recall_at_1: float
    psnr_db: float
    psnr_y_db: float
    ssim: float
    linf: float
    verified: float
    ms_per_image: float
    delta_e: float = math.nan


@dataclass
class Findings:
    """All tables; each is filled when its part of the evaluation is done."""

    recall: list[RecallRow] = field(default_factory=list)
    searches: list[SearchRow] = field(default_factory=list)
    variants: list[VariantRow] = field(default_factory=list)
    strengths: list[VariantRow] = field(default_factory=list)
    images: list[Published] = field(default_factory=list)
    detections: dict[bool, Detection] = field(default_factory=dict)
    verdicts: list[VerdictRow] = field(default_factory=list)

    def nprobes_of(self, index: str) -> list[int]:
        """Those that were timed: 1 and 16; only 1 for an index without cells."""
        return [row.nprobe for row in self.searches if row.index == index]

    def recall_of(self, index: str, nprobe: int, *, activated: bool) -> RecallRow:
        """The row of one index; raises StopIteration when it was not measured."""
        return next(r for r in self.recall if (r.index, r.nprobe, r.activated) == (index, nprobe, activated))


def variant_row(variant: str, alpha: float, recall: float, images: Sequence[Published]) -> VariantRow:
    """Averages over what was published; images that did not change have no PSNR and are left out of its mean."""
    return VariantRow(
        variant, alpha, len(images), recall, _mean([i.psnr_db for i in images]), _mean([i.psnr_y_db for i in images]),
        float(np.mean([i.ssim for i in images])), float(np.mean([i.linf for i in images])),
        float(np.mean([i.verified for i in images])), float(np.mean([i.ms for i in images])),
        _mean([i.delta_e for i in images]),
    )  # fmt: skip


def _mean(ratios: Iterable[float | None]) -> float:
    known = [ratio for ratio in ratios if ratio is not None]
    return float(np.mean(known)) if known else float("inf")


def write_tables(findings: Findings, folder: Path) -> None:
    """``recall.csv``, ``search.csv``, ``images.csv``, ``ways.csv``, ``strengths.csv``, ``detection.csv`` and
    ``verdicts.csv``."""
    recalls = (
        [row.index, row.nprobe, int(row.activated), edit, f"{share:.4f}"]
        for row in findings.recall
        for edit, share in [*row.by_edit.items(), ("average", row.average)]
    )
    _write(folder / "recall.csv", ["index", "nprobe", "activated", "edit", "recall_at_1"], recalls)
    _write(folder / "search.csv", _names(SearchRow), map(_rounded, findings.searches))
    images = (
        [i.image, _text(i.psnr_db), _text(i.ssim), i.linf, i.steps, _text(i.ms), _text(i.delta_e)]
        for i in findings.images
    )
    _write(folder / "images.csv", ["image", "psnr_db", "ssim", "linf", "steps", "ms", "delta_e"], images)
    for name, rows in (("ways", findings.variants), ("strengths", findings.strengths)):
        _write(folder / f"{name}.csv", ["way", *_names(VariantRow)[1:]], map(_rounded, rows))
    points = (
        [int(activated), _text(float(r)), _text(float(p))]
        for activated, found in findings.detections.items()
        for r, p in zip(found.recall, found.precision, strict=True)
    )
    _write(folder / "detection.csv", ["activated", "recall", "precision"], points)
    _write(folder / "verdicts.csv", [f.name for f in fields(VerdictRow)], map(_rounded, findings.verdicts))


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def _names(row: type[SearchRow | VariantRow]) -> list[str]:
    return [f.name for f in fields(row)]


def _rounded(row: SearchRow | VariantRow | VerdictRow) -> list[Any]:
    return [_text(value) if isinstance(value, float) else value for value in astuple(row)]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
