"""The report's plots, as SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np

from workers.evaluation.compare import BOUND, MASK, Measure
from workers.evaluation.findings import BINS, Findings, RecallRow
from workers.evaluation.geometry import Distances
from workers.evaluation.report import tables
from workers.images.edits import EDITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["detection_plot", "distances_plot", "edits_plot", "nprobe_plot", "strengths_plot"]

# Colours of the plots, in whose place the page's style has others where it is dark.
_INK, _PALE, _GREY, _BLUE, _ORANGE = "#000000", "#d5dbe1", "#697480", "#2563eb", "#b84f08"
_VARIABLES: Final = {_INK: "ink", _PALE: "pale", _GREY: "grey", _BLUE: "blue", _ORANGE: "orange"}
_SIZE: Final = (5.4, 3.4)


def edits_plot(exact: RecallRow, passive: RecallRow, activated: RecallRow) -> str:
    """R@1 by edit, as bars."""
    figure, axes = _figure((11.2, 3.4))
    positions = range(len(EDITS))
    for shift, row, colour, label in (
        (-0.28, exact, _PALE, "no index"), (0.0, passive, _GREY, "passive"), (0.28, activated, _BLUE, "activated"),
    ):  # fmt: skip
        axes.bar([p + shift for p in positions], [row.by_edit[e] for e in EDITS], 0.27, color=colour, label=label)
    axes.set_xticks(list(positions), [edit.replace("_", "\n") for edit in EDITS], fontsize=8)
    axes.set(ylabel="R@1", ylim=(0, 1.05))
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return _svg(figure)


def nprobe_plot(findings: Findings, main: str) -> str:
    """Average R@1 against the number of cells that are searched (nprobe)."""
    figure, axes = _figure(_SIZE)
    for activated, colour, label in ((True, _BLUE, "activated"), (False, _GREY, "passive")):
        rows = [r for r in findings.recall if r.index == main and r.activated == activated]
        axes.semilogx([r.nprobe for r in rows], [r.average for r in rows], "o-", color=colour, label=label, base=2)
    probes = [r.nprobe for r in findings.recall if r.index == main and not r.activated]
    axes.set_xticks(probes, [str(nprobe) for nprobe in probes])
    axes.set(xlabel="cells searched (nprobe)", ylabel="average R@1", ylim=(0, 1.02))
    axes.legend(frameon=False, loc="lower right")
    return _svg(figure)


def detection_plot(findings: Findings) -> str:
    """Precision against recall, passive and activated."""
    figure, axes = _figure(_SIZE)
    for activated, colour, label in ((True, _BLUE, "activated"), (False, _GREY, "passive")):
        found = findings.detections[activated]
        area = f"μAP {found.average_precision:.3f}"
        axes.plot(found.recall, found.precision, color=colour, label=f"{label}, {area}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="lower left")
    return _svg(figure)


def strengths_plot(findings: Findings, measure: Measure) -> str:
    """R@1 against visibility, for the perceptual mask and the plain bound."""
    figure, axes = _figure(_SIZE)
    for attenuation, colour, name in ((MASK, _BLUE, "perceptual mask"), (BOUND, _ORANGE, "same bound for all pixels")):
        rows = [row for row in findings.strengths if row.variant == attenuation]
        points = [getattr(row, measure.field) for row in rows]
        axes.plot(points, [row.recall_at_1 for row in rows], "o-", color=colour, label=name)
    axes.set(xlabel=measure.name + measure.unit.replace(" ", ", "), ylabel="average R@1")
    axes.legend(frameon=False)
    return _svg(figure)


def distances_plot(findings: Findings) -> str:
    """Histograms of ‖x − q(x)‖: unedited, edited and unrelated images, passive and activated."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # as in _figure

    figure = Figure(figsize=(11.2, 3.0), layout="constrained")
    for axes, activated in zip(figure.subplots(1, 2, sharex=True), (False, True), strict=True):
        for colour, one in zip((_BLUE, _ORANGE, _GREY), _distances(findings, activated), strict=True):
            weights = np.full(len(one.values), 1 / max(len(one.values), 1))
            axes.hist(one.values, BINS, weights=weights, histtype="step", color=colour, label=one.what, linewidth=1.6)
        axes.set(title=tables.state(activated), xlabel="‖x − q(x)‖", ylabel="share of images")
        _plain(axes)
        axes.legend(frameon=False)
    return _svg(figure)


def _distances(findings: Findings, activated: bool) -> list[Distances]:
    return [one for one in findings.distances if one.activated == activated]


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415  # of the evaluation extra; without pyplot's global state

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def _svg(figure: Figure) -> str:
    """The drawing without XML's head, without a date, so that equal findings give equal reports, and with colours that
    the page's style decides."""
    from matplotlib import rc_context  # noqa: PLC0415

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "aii"}):  # ids are random otherwise
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--plot-{name}, {colour})")
    return text[text.index("<svg") :]
