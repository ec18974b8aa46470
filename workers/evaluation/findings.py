"""What an evaluation found, and its CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from workers.evaluation.detection import Detection
from workers.evaluation.geometry import CellRow, Distances
from workers.evaluation.published import Published
from workers.evaluation.ranking import AllPairs, RankRow
from workers.evaluation.released import ReleaseRow
from workers.evaluation.uncertainty import Interval, bootstrap
from workers.evaluation.verdicts import VerdictRow
from workers.images.edits import EDITS
from workers.index.verdicts.calibration import wilson

__all__ = [
    "BINS",
    "TABLES",
    "Findings",
    "RecallRow",
    "SearchRow",
    "TimeRow",
    "VariantRow",
    "recall_row",
    "variant_row",
    "write_tables",
]

# The CSV files.
TABLES: Final = (
    "recall", "transfer", "search", "images", "ways", "strengths", "detection", "verdicts", "ranks", "pairs", "cells",
    "times", "released", "distances",
)  # fmt: skip
BINS: Final = np.linspace(0, 1.5, 61)  # of distances between unit vectors and reconstructions


@dataclass(frozen=True)
class RecallRow:
    """R@1 by edit of one index; `nprobe` is 0 where every entry is compared, `images` is the number of photographs."""

    index: str
    nprobe: int
    activated: bool
    images: int
    by_edit: Mapping[str, float]
    average_interval: Interval | None = None

    @property
    def average(self) -> float:
        """Over the fourteen edits; more edits do not count."""
        return float(np.mean([self.by_edit[edit] for edit in EDITS]))

    def interval(self, edit: str) -> Interval:
        """Wilson's, of one edit."""
        return wilson(round(self.by_edit[edit] * self.images), self.images)


@dataclass(frozen=True)
class TimeRow:
    """Milliseconds of a search on one thread: the mean, and percentiles over the queries (timings)."""

    index: str
    nprobe: int
    queries: int
    ms: float
    ms_p5: float
    ms_p50: float
    ms_p95: float


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
    recall_low: float = math.nan
    recall_high: float = math.nan


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
    ranks: list[RankRow] = field(default_factory=list)
    pairs: list[AllPairs] = field(default_factory=list)
    cells: list[CellRow] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)
    times: list[TimeRow] = field(default_factory=list)
    released: list[ReleaseRow] = field(default_factory=list)
    transfers: list[RecallRow] = field(default_factory=list)

    def nprobes_of(self, index: str) -> list[int]:
        """Those that were timed: 1 and 16; only 1 for an index without cells."""
        return [row.nprobe for row in self.searches if row.index == index]

    def recall_of(self, index: str, nprobe: int, *, activated: bool) -> RecallRow:
        """The row of one index; raises StopIteration when it was not measured."""
        return next(r for r in self.recall if (r.index, r.nprobe, r.activated) == (index, nprobe, activated))


def recall_row(index: str, nprobe: int, found: Mapping[str, npt.NDArray[np.bool_]], *, activated: bool) -> RecallRow:
    """Shares of the photographs (N,) that are found in each edit; the average's interval is over photographs."""
    shares = {edit: float(row.mean()) for edit, row in found.items()}
    by_photograph = np.mean([found[edit] for edit in EDITS], axis=0)
    return RecallRow(index, nprobe, activated, len(by_photograph), shares, bootstrap(by_photograph))


def variant_row(
    variant: str, alpha: float, by_photograph: npt.NDArray[np.float64], images: Sequence[Published]
) -> VariantRow:
    """Averages over what was published; images that did not change have no PSNR and are left out of its mean.

    Args:
        by_photograph: (N,) shares of each photograph's copies that are found.
    """
    low, high = bootstrap(by_photograph)
    return VariantRow(
        variant, alpha, len(images), float(by_photograph.mean()), _mean([i.psnr_db for i in images]),
        _mean([i.psnr_y_db for i in images]), float(np.mean([i.ssim for i in images])),
        float(np.mean([i.linf for i in images])), float(np.mean([i.verified for i in images])),
        float(np.mean([i.ms for i in images])), _mean([i.delta_e for i in images]), low, high,
    )  # fmt: skip


def _mean(ratios: Iterable[float | None]) -> float:
    known = [ratio for ratio in ratios if ratio is not None]
    return float(np.mean(known)) if known else float("inf")


def write_tables(findings: Findings, folder: Path) -> None:
    """A CSV file for each table; the README names them."""
    for name, rows_of_recall in (("recall", findings.recall), ("transfer", findings.transfers)):
        _write_recall(folder / f"{name}.csv", rows_of_recall)
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
    for name, kind, more in (
        ("verdicts", VerdictRow, findings.verdicts), ("ranks", RankRow, findings.ranks),
        ("pairs", AllPairs, findings.pairs), ("cells", CellRow, findings.cells), ("times", TimeRow, findings.times),
        ("released", ReleaseRow, findings.released),
    ):  # fmt: skip
        _write(folder / f"{name}.csv", _names(kind), map(_rounded, more))
    _write(folder / "distances.csv", ["what", "activated", "from", "to", "images"], _histograms(findings.distances))


def _write_recall(path: Path, measured: Iterable[RecallRow]) -> None:
    rows = (
        [row.index, row.nprobe, int(row.activated), edit, f"{share:.4f}", *map(_text, interval)]
        for row in measured
        for edit, share, interval in [
            *((edit, share, row.interval(edit)) for edit, share in row.by_edit.items()),
            ("average", row.average, row.average_interval or (None, None)),
        ]
    )
    _write(path, ["index", "nprobe", "activated", "edit", "recall_at_1", "low", "high"], rows)


def _histograms(distances: Iterable[Distances]) -> Iterator[Sequence[Any]]:
    for one in distances:
        counts, edges = np.histogram(one.values, bins=BINS)
        for count, low, high in zip(counts, edges, edges[1:], strict=False):
            yield one.what, int(one.activated), f"{low:.3f}", f"{high:.3f}", int(count)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def _names(row: type[Any]) -> list[str]:
    return [f.name for f in fields(row)]


def _rounded(row: Any) -> list[Any]:
    return [_text(value) if isinstance(value, float) else value for value in astuple(row)]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
