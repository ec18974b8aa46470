"""Tables of what lies behind R@1: ranks, all pairs, cells, times, and what was recompressed before release."""

from __future__ import annotations

from collections.abc import Sequence

from workers.evaluation.findings import Findings
from workers.evaluation.report.tables import AVERAGE, Table, state
from workers.images.edits import EDITS

__all__ = ["cells_table", "pairs_table", "ranks_table", "released_table", "times_table", "transfer_table", "within"]


def within(share: float, low: float, high: float) -> str:
    """A share with its interval."""
    return f"{share:.3f} ({low:.3f} to {high:.3f})"


def ranks_table(findings: Findings) -> Table:
    """R@1, R@10 and R@100 of the main index."""
    ks = sorted({row.k for row in findings.ranks})
    rows: dict[tuple[int, bool], list[str]] = {}
    for row in findings.ranks:
        start = [f"{state(row.activated)}, nprobe {row.nprobe}"]
        rows.setdefault((row.nprobe, row.activated), start).append(within(row.recall, row.low, row.high))
    return Table(("images", *(f"R@{k}" for k in ks)), [rows[key] for key in sorted(rows)])


def pairs_table(findings: Findings) -> Table:
    """The paper's detection protocol."""
    rows = [
        (
            f"{state(row.activated)}, nprobe {row.nprobe}", "normalised" if row.normalised else "plain",
            within(row.average_precision, row.low, row.high), f"{row.recall_at_90:.3f}",
        )
        for row in sorted(findings.pairs, key=lambda row: (row.nprobe, row.activated, row.normalised))
    ]  # fmt: skip
    return Table(("images", "distance", "μAP", "recall at 90 % precision"), rows)


def cells_table(findings: Findings) -> Table:
    """The share of copies that leave the cell of their code, by edit, and over the fourteen."""
    by_edit: dict[str, dict[bool, str]] = {}
    averages: dict[bool, list[float]] = {False: [], True: []}
    for row in findings.cells:
        by_edit.setdefault(row.edit, {})[row.activated] = within(row.left, row.low, row.high)
        if row.edit in EDITS:
            averages[row.activated].append(row.left)
    rows: list[Sequence[str]] = [(edit, sides[False], sides[True]) for edit, sides in by_edit.items()]
    if rows:
        rows.insert(len(EDITS), (AVERAGE, *(f"{sum(v) / len(v):.3f}" for v in averages.values())))
    return Table(("edit", "passive", "activated"), rows)


def times_table(findings: Findings) -> Table:
    """Milliseconds of a search by nprobe, with their spread."""
    rows = [
        (f"{row.index}, nprobe {row.nprobe}", *(f"{ms:.3f}" for ms in (row.ms, row.ms_p5, row.ms_p50, row.ms_p95)))
        for row in findings.times
    ]
    return Table(("index", "mean, ms", "5 % are faster than", "median", "5 % are slower than"), rows)


def transfer_table(findings: Findings) -> Table:
    """R@1 by edit where another extractor searches for what was activated."""
    sides = findings.transfers
    rows: list[Sequence[str]] = [
        (edit, *(within(row.by_edit[edit], *row.interval(edit)) for row in sides)) for edit in EDITS if sides
    ]
    if rows:
        rows.append((AVERAGE, *(within(row.average, *row.average_interval or (0, 1)) for row in sides)))
    return Table(("edit", *(f"{state(row.activated)}, {row.index}" for row in sides)), rows)


def released_table(findings: Findings) -> Table:
    """R@1 of copies of what a platform recompressed."""
    rows = [
        (
            row.release, within(row.passive, row.passive_low, row.passive_high),
            within(row.activated, row.activated_low, row.activated_high),
        )
        for row in findings.released
    ]  # fmt: skip
    return Table(("released as", "passive", "activated"), rows)
