"""``report.html``: every table with the paper's figures beside ours, plots and pictures, in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from workers.evaluation.compare import MEASURES
from workers.evaluation.findings import Findings
from workers.evaluation.report import more_tables, plots, tables
from workers.evaluation.report.sheet import Shown, contact_sheet
from workers.evaluation.run import FLAT, EvaluationPlan

__all__ = ["write_report"]

_TEMPLATE: Final = Path(__file__).with_name("report.html")
_MOST_SKIPPED: Final = 100  # lines


def write_report(
    path: Path, findings: Findings, plan: EvaluationPlan, setting: Mapping[str, str], shown: Sequence[Shown],
    skipped: Sequence[str],
) -> None:  # fmt: skip
    """Fill the page. Everything but our own plots is escaped: names of files and of indexes come from outside."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template(_TEMPLATE.name).render(
        main=plan.main,
        images=len(findings.images),
        setting=tables.Table(("what", "value"), list(setting.items())),
        sheet=_data_url(contact_sheet(shown)),
        skipped=skipped[:_MOST_SKIPPED],
        skipped_count=len(skipped),
        **_tables(findings, plan),
        **_plots(findings, plan.main),
    )
    path.write_text(page, "utf-8", errors="backslashreplace")


def _tables(findings: Findings, plan: EvaluationPlan) -> dict[str, object]:
    passive, activated = (findings.recall_of(plan.main, 1, activated=a) for a in (False, True))
    intervals = [row.average_interval for row in (passive, activated) if row.average_interval]
    return {
        "headline": f"{passive.average:.2f} → {activated.average:.2f}",
        "headline_intervals": " and ".join(f"{low:.3f} to {high:.3f}" for low, high in intervals),
        "main_table": tables.main_table(findings, plan.main),
        "edits_table": tables.edits_table(findings, plan.main),
        "others_table": tables.others_table(findings, plan.others),
        "variants_table": tables.variants_table(findings.variants),
        "strengths_table": tables.strengths_table(findings.strengths),
        "comparison_sentences": tables.comparison_sentences(findings.strengths),
        "comparison_table": tables.comparison_table(findings.strengths),
        "detection_table": tables.detection_table(findings),
        "verdicts_table": tables.verdicts_table(findings),
        "ranks_table": more_tables.ranks_table(findings),
        "pairs_table": more_tables.pairs_table(findings),
        "cells_table": more_tables.cells_table(findings),
        "times_table": more_tables.times_table(findings),
        "transfer_table": more_tables.transfer_table(findings),
        "released_table": more_tables.released_table(findings),
        "quality": tables.quality_sentence(findings),
        "average": tables.AVERAGE,
    }


def _plots(findings: Findings, main: str) -> dict[str, object]:
    exact = findings.recall_of(FLAT, 0, activated=False)
    passive, activated = (findings.recall_of(main, 1, activated=a) for a in (False, True))
    return {
        "edits_plot": Markup(plots.edits_plot(exact, passive, activated)),
        "nprobe_plot": Markup(plots.nprobe_plot(findings, main)),
        "strengths_plots": [Markup(plots.strengths_plot(findings, measure)) for measure in MEASURES],
        "distances_plot": Markup(plots.distances_plot(findings)) if findings.distances else "",
        "detection_plot": Markup(plots.detection_plot(findings)),
    }


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
