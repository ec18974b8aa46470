"""The report's tables and sentences as text, before they become HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from tasks.monitoring.paper import BY_EDIT, QUALITY
from workers.evaluation.compare import BOUND, MASK, MEASURES, compare
from workers.evaluation.findings import Findings, RecallRow, VariantRow
from workers.evaluation.report import paper
from workers.evaluation.run import FLAT
from workers.images.edits import EDITS

__all__ = [
    "AVERAGE",
    "Beside",
    "Table",
    "comparison_sentences",
    "comparison_table",
    "detection_table",
    "edits_table",
    "main_table",
    "others_table",
    "quality_sentence",
    "state",
    "strengths_table",
    "variants_table",
    "verdicts_table",
]  # fmt: skip

AVERAGE: Final = "average"
_UNKNOWN: Final = "–"
_MASKS: Final = {MASK: "perceptual mask", BOUND: "same bound for all pixels"}


class Beside(NamedTuple):
    """A cell with the paper's figure beside ours."""

    ours: str
    paper: str


Cell = str | Beside


class Table(NamedTuple):
    """The names of the columns, and the rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def main_table(findings: Findings, main: str) -> Table:
    """R@1 and costs of a search, without an index and with the main one."""
    costs = {(row.index, row.nprobe): row for row in findings.searches}
    rows = []
    for index, nprobe, activated in _measured(findings, main):
        recall, cost = findings.recall_of(index, nprobe, activated=activated), costs[index, nprobe]
        theirs = paper.main_search(nprobe)
        rows.append((
            f"{index}, nprobe {nprobe}" if nprobe else "no index",
            state(activated),
            Beside(_average(recall), f"{theirs.activated if activated else theirs.passive:.2f}"),
            Beside(f"{cost.ms_per_query:.3f}", f"{theirs.ms:g}"),
            Beside(f"{cost.bytes_per_vector:,}", f"{paper.code_bytes(nprobe):,}"),
        ))  # fmt: skip
    return Table(("index", "images", "R@1", "ms a search", "bytes a vector"), rows)


def edits_table(findings: Findings, main: str) -> Table:
    """R@1 by edit, their average, and the edits that do not count in it."""
    measured = _measured(findings, main)
    ours = [findings.recall_of(index, nprobe, activated=activated) for index, nprobe, activated in measured]
    theirs = [BY_EDIT[nprobe, activated] for _, nprobe, activated in measured]
    averages = [paper.average_by_edit(nprobe, activated) for _, nprobe, activated in measured]
    rows: list[Sequence[Cell]] = [
        (edit, *(Beside(f"{o.by_edit[edit]:.3f}", f"{t[i]:.2f}") for o, t in zip(ours, theirs, strict=True)))
        for i, edit in enumerate(EDITS)
    ]
    rows.append((
        AVERAGE, *(Beside(f"{o.average:.3f}", f"{average:.2f}") for o, average in zip(ours, averages, strict=True)),
    ))  # fmt: skip
    more = [edit for edit in ours[0].by_edit if edit not in EDITS]
    rows += [(f"{edit} (in no average)", *(f"{o.by_edit[edit]:.3f}" for o in ours)) for edit in more]
    names = (f"{state(activated)}, nprobe {nprobe}" if nprobe else "no index" for _, nprobe, activated in measured)
    return Table(("edit", *names), rows)


def others_table(findings: Findings, others: Iterable[str]) -> Table:
    """The other indexes, passive and activated."""
    costs = {(row.index, row.nprobe): row for row in findings.searches}
    rows = []
    measured = [(factory, nprobe) for factory in others for nprobe in findings.nprobes_of(factory)]
    for factory, nprobe in measured:
        sides = [findings.recall_of(factory, nprobe, activated=a) for a in (False, True)]
        passive, activated = (side.average for side in sides)
        cost, known = costs[factory, nprobe], paper.same_kind(factory) if nprobe == 1 else None
        theirs = (f"{known.passive:.2f}", f"{known.activated:.2f}", f"{known.ms:g}") if known else (_UNKNOWN,) * 3
        rows.append((
            f"{factory}, nprobe {nprobe}",
            Beside(_average(sides[0]), theirs[0]),
            Beside(_average(sides[1]), theirs[1]),
            f"{activated - passive:+.3f}",
            Beside(f"{cost.ms_per_query:.3f}", theirs[2]),
            f"{cost.bytes_per_vector:,}",
        ))  # fmt: skip
    return Table(("index", "passive", "activated", "gain", "ms a search", "bytes a vector"), rows)


def variants_table(variants: Iterable[VariantRow]) -> Table:
    """R@1, time and quality by activation options."""
    rows = []
    for row in variants:
        known = paper.variant_figures(row.variant)
        recall, ms = (f"{figure:g}" for figure in known) if known else (_UNKNOWN, _UNKNOWN)
        rows.append((
            row.variant, Beside(_of_variant(row), recall), Beside(f"{row.ms_per_image:.1f}", ms),
            f"{row.psnr_db:.2f}", f"{row.ssim:.4f}", f"{row.verified:.1%}",
        ))  # fmt: skip
    return Table(("variant", "R@1", "ms an image", "PSNR, dB", "SSIM", "verified"), rows)


def strengths_table(strengths: Iterable[VariantRow]) -> Table:
    """R@1 and quality of both masks by strength."""
    rows = [
        (
            _MASKS[row.variant], f"{row.alpha:g}", _of_variant(row), f"{row.psnr_db:.2f}",
            f"{row.psnr_y_db:.2f}", f"{row.ssim:.4f}", f"{row.linf:.1f}",
        )
        for row in strengths
    ]  # fmt: skip
    return Table(("change", "alpha", "R@1", "PSNR, dB", "of luminance", "SSIM", "L∞"), rows)


def comparison_sentences(strengths: Sequence[VariantRow]) -> list[str]:
    """Which mask finds more at equal visibility, one sentence for each measure of visibility."""
    sentences = []
    for measure in MEASURES:
        compared = compare(strengths, measure)
        if compared is None:
            sentences.append(f"By {measure.name} the two curves have no range in common: choose other strengths.")
            continue
        better = MASK if compared.recall[MASK] > compared.recall[BOUND] else BOUND
        sentences.append(f"At equal {measure.name} the {_MASKS[better]} finds more.")
    return sentences


def comparison_table(strengths: Sequence[VariantRow]) -> Table:
    """Both masks at equal visibility and at equal R@1."""
    rows: list[Sequence[Cell]] = []
    for measure in MEASURES:
        _, name, unit, digits = measure
        compared = compare(strengths, measure)
        if compared is not None:
            recalls = (f"{compared.recall[mask]:.3f}" for mask in _MASKS)
            rows.append((f"R@1 at {name} {compared.at:.{digits}f}{unit}", *recalls))
            figures = (f"{compared.figure[mask]:.{digits + 1}f}{unit}" for mask in _MASKS)
            rows.append((f"{name} at R@1 {compared.at_recall:.3f}", *figures))
    return Table(("interpolated", *_MASKS.values()), rows)


def detection_table(findings: Findings) -> Table:
    """Average precision, and recall at 90 % precision."""
    rows = []
    for activated, found in findings.detections.items():
        threshold = _UNKNOWN if found.threshold is None else f"{found.threshold:.4f}"
        area = f"{found.average_precision:.3f}"
        rows.append((state(activated), area, threshold, f"{found.recall_at_threshold:.3f}"))
    return Table(("images", "μAP", "distance at 90 % precision", "recall there"), rows)


def verdicts_table(findings: Findings) -> Table:
    """Copies that are found and called a match, and unrelated images that are, with their intervals."""
    rows = [
        (
            f"{state(row.activated)}, nprobe {row.nprobe}, at {row.fpr:.1%}", f"{row.recall_at_1:.3f}",
            f"{row.matched:.3f} ({row.matched_low:.3f} to {row.matched_high:.3f})", f"{row.originals:.3f}",
            f"{row.false_matches:.2%} ({row.false_matches_low:.2%} to {row.false_matches_high:.2%})",
        )
        for row in findings.verdicts
    ]  # fmt: skip
    return Table(("images", "R@1", "found and matched", "originals", "unrelated matched"), rows)


def quality_sentence(findings: Findings) -> str:
    """Means ± standard deviations over the published images, with the paper's; and how many were verified."""
    psnr = [image.psnr_db for image in findings.images if image.psnr_db is not None]
    ssim, linf = ([getattr(image, name) for image in findings.images] for name in ("ssim", "linf"))
    delta_e = [image.delta_e for image in findings.images if image.delta_e is not None]
    parts = (
        (psnr, "PSNR", " dB", 2),
        (ssim, "SSIM", "", 4),
        (linf, "L∞", " grey levels", 1),
        (delta_e, "ΔE", " (CIEDE2000, 99th percentile)", 1),
    )
    texts = (f"{n} {np.mean(v):.{d}f} ± {np.std(v):.{d}f}{u}" for v, n, u, d in parts if v)
    verified = sum(image.verified for image in findings.images)
    return f"{', '.join(texts)} (the paper: {QUALITY}). {verified:,} of {len(findings.images):,} files were verified."


def _average(row: RecallRow) -> str:
    """R@1 over the fourteen edits, with its interval where that is known."""
    low, high = row.average_interval or (math.nan, math.nan)
    return _with_interval(row.average, low, high)


def _of_variant(row: VariantRow) -> str:
    return _with_interval(row.recall_at_1, row.recall_low, row.recall_high)


def _with_interval(share: float, low: float, high: float) -> str:
    return f"{share:.3f}" if math.isnan(low) else f"{share:.3f} ({low:.3f} to {high:.3f})"


def _measured(findings: Findings, main: str) -> list[tuple[str, int, bool]]:
    """Index, nprobe and whether activated: without an index, then the main one."""
    return [
        (FLAT, 0, False),
        *((main, nprobe, activated) for nprobe in findings.nprobes_of(main) for activated in (False, True)),
    ]


def state(activated: bool) -> str:
    """What is said of images as they are, and as they were published."""
    return "activated" if activated else "passive"
