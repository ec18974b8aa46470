"""``report.html``: every table with the paper's figures beside ours, plots and pictures, in one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from workers.evaluation.compare import BOUND, MASK, MEASURES, meeting
from workers.evaluation.edits import EDITS
from workers.evaluation.findings import Findings, VariantRow
from workers.evaluation.report import paper, plots
from workers.evaluation.report.sheet import Shown, contact_sheet
from workers.evaluation.run import FLAT, EvaluationPlan

__all__ = ["write_report"]

AVERAGE: Final = "average"
_AS_TOTAL: Final = ' class="total"'
_TEMPLATE: Final = Path(__file__).with_name("report.html")


class Beside(NamedTuple):
    """A cell with the paper's figure beside ours."""

    ours: str
    paper: str


def write_report(
    path: Path, findings: Findings, extent: EvaluationPlan, setting: Mapping[str, str], shown: Sequence[Shown],
    skipped: Sequence[str],
) -> None:  # fmt: skip
    """Fill the page; everything that came from outside is escaped."""
    main = extent.main
    exact = findings.recall_of(FLAT, 0, activated=False)
    passive, activated = (findings.recall_of(main, 1, activated=a) for a in (False, True))
    page = Template(_TEMPLATE.read_text("utf-8")).substitute(
        headline=f"{passive.average:.2f} → {activated.average:.2f}",
        main=html.escape(main),
        images=len(findings.images),
        main_table=_main_table(findings, main),
        edits_plot=plots.edits_plot(exact, passive, activated),
        edits_table=_edits_table(findings, main),
        nprobe_plot=plots.nprobe_plot(findings, main),
        meetings=_meetings(findings),
        others_table=_others_table(findings, extent.others),
        ways_table=_ways_table(findings.ways),
        strengths_plots="".join(f"<div>{plots.strengths_plot(findings, measure)}</div>" for measure in MEASURES),
        strengths_table=_strengths_table(findings.strengths),
        detection_plot=plots.detection_plot(findings),
        detection_table=_detection_table(findings),
        quality=_quality(findings),
        sheet=_picture(contact_sheet(shown)),
        setting=_table(("what", "value"), setting.items()),
        skipped=_skipped(skipped),
    )
    path.write_text(page, "utf-8", errors="backslashreplace")


def _main_table(findings: Findings, main: str) -> str:
    costs = {(row.index, row.nprobe): row for row in findings.searches}
    rows = []
    for index, nprobe, active in ((FLAT, 0, False), *_measured(findings, main)):
        recall, cost = findings.recall_of(index, nprobe, activated=active), costs[index, nprobe]
        paper_ms, paper_bytes = paper.SEARCHES[nprobe]
        rows.append((
            "no index" if index == FLAT else f"{index}, nprobe {nprobe}",
            _state(active),
            Beside(f"{recall.average:.3f}", f"{paper.average(nprobe, active):.2f}"),
            Beside(f"{cost.ms_per_query:.3f}", f"{paper_ms:g}"),
            Beside(f"{cost.bytes_per_vector:,}", f"{paper_bytes:,}"),
        ))  # fmt: skip
    return _table(("index", "images", "R@1", "ms a search", "bytes a vector"), rows)


def _edits_table(findings: Findings, main: str) -> str:
    measured = [(FLAT, 0, False), *_measured(findings, main)]
    columns = [
        (findings.recall_of(i, n, activated=a), paper.BY_EDIT[n, a], paper.average(n, a)) for i, n, a in measured
    ]
    rows: list[Sequence[object]] = [
        (edit, *(Beside(f"{ours.by_edit[edit]:.3f}", f"{theirs[i]:.2f}") for ours, theirs, _ in columns))
        for i, edit in enumerate(EDITS)
    ]
    rows.append((AVERAGE, *(Beside(f"{ours.average:.3f}", f"{theirs:.2f}") for ours, _, theirs in columns)))
    more = [edit for edit in columns[0][0].by_edit if edit not in EDITS]
    rows += [(f"{edit} (in no average)", *(f"{ours.by_edit[edit]:.3f}" for ours, _, _ in columns)) for edit in more]
    names = (f"{_state(active)}, nprobe {nprobe}" if nprobe else "no index" for _, nprobe, active in measured)
    return _table(("edit", *names), rows)


def _measured(findings: Findings, main: str) -> list[tuple[str, int, bool]]:
    """The main index's columns: index, nprobe, activated."""
    return [(main, nprobe, active) for nprobe in findings.nprobes_of(main) for active in (False, True)]


def _others_table(findings: Findings, others: Iterable[str]) -> str:
    costs = {row.index: row for row in findings.searches if row.nprobe == 1}
    rows = []
    for factory in others:
        passive, activated = (findings.recall_of(factory, 1, activated=a).average for a in (False, True))
        cost, known = costs[factory], paper.other(factory)
        theirs = (f"{known.passive:.2f}", f"{known.activated:.2f}", f"{known.ms:g}") if known else ("–", "–", "–")
        rows.append((
            factory,
            Beside(f"{passive:.3f}", theirs[0]),
            Beside(f"{activated:.3f}", theirs[1]),
            f"{activated - passive:+.3f}",
            Beside(f"{cost.ms_per_query:.3f}", theirs[2]),
            f"{cost.bytes_per_vector:,}",
        ))  # fmt: skip
    return _table(("index", "passive", "activated", "gain", "ms a search", "bytes a vector"), rows)


def _ways_table(ways: Sequence[VariantRow]) -> str:
    rows = []
    for row in ways:
        recall, ms = (f"{figure:g}" for figure in paper.WAYS[row.way]) if row.way in paper.WAYS else ("–", "–")
        rows.append((
            row.way, Beside(f"{row.recall_at_1:.3f}", recall), Beside(f"{row.ms_per_image:.1f}", ms),
            f"{row.psnr_db:.2f}", f"{row.ssim:.4f}", f"{row.verified:.1%}",
        ))  # fmt: skip
    return _table(("way", "R@1", "ms an image", "PSNR, dB", "SSIM", "verified"), rows)


def _strengths_table(strengths: Sequence[VariantRow]) -> str:
    rows = (
        (
            _mask(r.way),
            f"{r.alpha:g}",
            f"{r.recall_at_1:.3f}",
            f"{r.psnr_db:.2f}",
            f"{r.psnr_y_db:.2f}",
            f"{r.ssim:.4f}",
            f"{r.linf:.1f}",
        )
        for r in strengths
    )
    return _table(("change", "alpha", "R@1", "PSNR, dB", "of luminance", "SSIM", "L∞"), rows)


def _meetings(findings: Findings) -> str:
    """Who wins, in words and figures, where both are equally visible and where both find equally much."""
    sentences, rows = [], []
    for measure in MEASURES:
        _, name, unit, digits = measure
        met = meeting(findings.strengths, measure)
        if met is None:
            sentences.append(f"By {name} the two curves have no range in common: choose other strengths.")
            continue
        at = f"{met.at:.{digits}f}{unit}"
        rows.append((f"R@1 at {name} {at}", *(f"{met.recall[way]:.3f}" for way in (MASK, BOUND))))
        recall = f"{name} at R@1 {met.at_recall:.3f}"
        rows.append((recall, *(f"{met.figure[way]:.{digits + 1}f}{unit}" for way in (MASK, BOUND))))
        better = "perceptual mask" if met.recall[MASK] > met.recall[BOUND] else "same bound for all pixels"
        sentences.append(f"At equal {name} the {better} finds more.")
    return f"<p>{' '.join(sentences)}</p>" + _table(("interpolated", _mask(MASK), _mask(BOUND)), rows)


def _mask(way: str) -> str:
    return {MASK: "perceptual mask", BOUND: "same bound for all pixels"}[way]


def _state(activated: bool) -> str:
    return "activated" if activated else "passive"


def _detection_table(findings: Findings) -> str:
    rows = []
    for activated, found in findings.detections.items():
        threshold = "–" if found.threshold is None else f"{found.threshold:.4f}"
        area = f"{found.average_precision:.3f}"
        rows.append((_state(activated), area, threshold, f"{found.recall_at_threshold:.3f}"))
    return _table(("images", "μAP", "distance at 90 % precision", "recall there"), rows)


def _quality(findings: Findings) -> str:
    """Means ± standard deviations over the published images, with the paper's; and how many were verified."""
    psnr = [image.psnr_db for image in findings.images if image.psnr_db is not None]
    ssim, linf = ([getattr(image, name) for image in findings.images] for name in ("ssim", "linf"))
    parts = ((psnr, "PSNR", " dB", 2), (ssim, "SSIM", "", 4), (linf, "L∞", " grey levels", 1))
    texts = (f"{n} {np.mean(v):.{d}f} ± {np.std(v):.{d}f}{u}" for v, n, u, d in parts if v)
    verified = sum(image.verified for image in findings.images)
    figures = f"{', '.join(texts)} (the paper: {paper.QUALITY})"
    return f"{figures}. {verified:,} of {len(findings.images):,} files were verified."


def _skipped(lines: Sequence[str]) -> str:
    if not lines:
        return "<p>None: every file could be read, and no two are the same.</p>"
    shown = "".join(f"<li>{html.escape(line)}</li>" for line in lines[:100])
    more = f"<p>… and {len(lines) - 100} more.</p>" if len(lines) > 100 else ""
    return f"<p>{len(lines):,} files were left out:</p><ul>{shown}</ul>{more}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr{_AS_TOTAL if row[0] == AVERAGE else ''}>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: object) -> str:
    if isinstance(cell, Beside):
        return f'<td>{html.escape(cell.ours)} <i title="the paper">{html.escape(cell.paper)}</i></td>'
    return f"<td>{html.escape(str(cell))}</td>"


def _picture(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
