"""``report.html``: every table with the paper's figures beside ours, plots and pictures, in one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final

import numpy as np
from PIL import Image

from workers.evaluation import plots
from workers.evaluation.edits import EDITS
from workers.evaluation.run import FLAT, Extent
from workers.evaluation.sheet import Shown, contact_sheet
from workers.evaluation.tables import Findings, WayRow

__all__ = ["write_report"]

_TEMPLATE: Final = Path(__file__).with_name("report.html")
# Fernandez et al., "Active Image Indexing", ICLR 2023: SSCD, IVF4096,PQ8x8, one million references.
_PAPER: Final = {
    (FLAT, 0, False): ("0.99", "252"),
    ("IVF", 1, False): ("0.45", "0.38"),
    ("IVF", 16, False): ("0.79", "–"),
    ("IVF", 1, True): ("0.75", "0.38"),
    ("IVF", 16, True): ("0.88", "–"),
}
_PAPER_WAYS: Final = {"10 steps": ("0.75", "39.8"), "1 step": ("0.72", "4.3")}


def write_report(
    path: Path, findings: Findings, extent: Extent, setting: Mapping[str, str], shown: Sequence[Shown],
    skipped: Sequence[str],
) -> None:  # fmt: skip
    """Fill the page; everything that came from outside is escaped."""
    main = extent.main
    exact = findings.recall_of(FLAT, 0, activated=False)
    passive, activated = (findings.recall_of(main, 1, activated=a) for a in (False, True))
    page = Template(_TEMPLATE.read_text()).substitute(
        headline=f"{passive.average:.2f} → {activated.average:.2f}",
        main=html.escape(main),
        images=len(findings.images),
        main_table=_main_table(findings, main),
        edits_plot=plots.edits_plot(exact, passive, activated),
        edits_table=_edits_table(findings, main),
        nprobe_plot=plots.nprobe_plot(findings, main),
        others_table=_others_table(findings, extent.others),
        ways_table=_ways_table(findings.ways),
        psnr_plot=plots.strengths_plot(findings, "psnr_db", "PSNR, dB"),
        ssim_plot=plots.strengths_plot(findings, "ssim", "SSIM"),
        strengths_table=_table(("mask", "alpha", "R@1", "PSNR, dB", "SSIM", "L∞"), map(_strength, findings.strengths)),
        detection_plot=plots.detection_plot(findings),
        detection_table=_detection_table(findings),
        quality=_quality(findings),
        sheet=_picture(contact_sheet(shown)),
        setting=_table(("what", "value"), setting.items()),
        skipped=_skipped(skipped),
    )
    path.write_text(page)


def _main_table(findings: Findings, main: str) -> str:
    ms = {(row.index, row.nprobe): row for row in findings.searches}
    rows = []
    for index, nprobe, active in ((FLAT, 0, False), *_measured(findings, main)):
        ours, search = findings.recall_of(index, nprobe, activated=active), ms[index, nprobe]
        paper = _PAPER.get(("IVF" if index.startswith("IVF") else index, nprobe, active), ("–", "–"))
        name = "no index" if index == FLAT else f"{index}, nprobe {nprobe}"
        state = "activated" if active else "passive"
        cost = (f"{search.ms_per_query:.3f}", f"{search.bytes_per_vector:,}")
        rows.append((name, state, f"{ours.average:.3f}", paper[0], *cost[:1], paper[1], cost[1]))
    return _table(("index", "images", "R@1", "paper", "ms a search", "paper", "bytes a vector"), rows)


def _edits_table(findings: Findings, main: str) -> str:
    columns = [findings.recall_of(FLAT, 0, activated=False)]
    measured = _measured(findings, main)
    columns += [findings.recall_of(index, nprobe, activated=active) for index, nprobe, active in measured]
    rows = [(edit, *(f"{column.by_edit[edit]:.3f}" for column in columns)) for edit in EDITS]
    rows.append(("average", *(f"{column.average:.3f}" for column in columns)))
    states = (f"{'activated' if active else 'passive'}, nprobe {nprobe}" for _, nprobe, active in measured)
    return _table(("edit", "no index", *states), rows)


def _measured(findings: Findings, main: str) -> list[tuple[str, int, bool]]:
    """The main index's columns: index, nprobe, activated."""
    return [(main, nprobe, active) for nprobe in findings.nprobes_of(main) for active in (False, True)]


def _others_table(findings: Findings, others: Iterable[str]) -> str:
    ms = {row.index: row for row in findings.searches if row.nprobe == 1}
    rows = []
    for factory in others:
        passive, activated = (findings.recall_of(factory, 1, activated=a) for a in (False, True))
        gain, cost = activated.average - passive.average, ms[factory]
        rows.append((factory, f"{passive.average:.3f}", f"{activated.average:.3f}", f"{gain:+.3f}",
                     f"{cost.ms_per_query:.3f}", cost.bytes_per_vector))  # fmt: skip
    return _table(("index", "passive", "activated", "gain", "ms a search", "bytes a vector"), rows)


def _ways_table(ways: Sequence[WayRow]) -> str:
    rows = []
    for row in ways:
        recall, ms = _PAPER_WAYS.get(row.way, ("–", "–"))
        rows.append((row.way, f"{row.recall_at_1:.3f}", recall, f"{row.psnr_db:.2f}", f"{row.ms_per_image:.1f}", ms))
    return _table(("way", "R@1", "paper", "PSNR, dB", "ms an image", "paper"), rows)


def _strength(row: WayRow) -> tuple[object, ...]:
    return (
        row.way,
        f"{row.alpha:g}",
        f"{row.recall_at_1:.3f}",
        f"{row.psnr_db:.2f}",
        f"{row.ssim:.4f}",
        f"{row.linf:.1f}",
    )


def _detection_table(findings: Findings) -> str:
    rows = []
    for activated, found in findings.detections.items():
        threshold = "–" if found.threshold is None else f"{found.threshold:.4f}"
        state = "activated" if activated else "passive"
        rows.append((state, f"{found.average_precision:.3f}", threshold, f"{found.recall_at_threshold:.3f}"))
    return _table(("images", "μAP", "distance at 90 % precision", "recall there"), rows)


def _quality(findings: Findings) -> str:
    """Means ± standard deviations over the published images."""
    psnr = [image.psnr_db for image in findings.images if image.psnr_db is not None]
    ssim, linf = ([getattr(image, name) for image in findings.images] for name in ("ssim", "linf"))
    parts = ((psnr, "PSNR", " dB", 2), (ssim, "SSIM", "", 4), (linf, "L∞", " grey levels", 1))
    texts = (f"{n} {np.mean(v):.{d}f} ± {np.std(v):.{d}f}{u}" for v, n, u, d in parts if v)
    return ", ".join(texts)


def _skipped(lines: Sequence[str]) -> str:
    if not lines:
        return "<p>Every file could be read.</p>"
    shown = "".join(f"<li>{html.escape(line)}</li>" for line in lines[:100])
    more = f"<p>… and {len(lines) - 100} more.</p>" if len(lines) > 100 else ""
    return f"<p>{len(lines)} files could not be read and were left out:</p><ul>{shown}</ul>{more}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _picture(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
