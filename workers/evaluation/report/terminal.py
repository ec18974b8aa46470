"""What a person sees of an evaluation in the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from tasks.streams import is_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.evaluation.findings import Findings
    from workers.evaluation.run import EvaluationPlan

__all__ = ["Progress", "print_main_table", "print_skipped"]


class Progress:
    """On a terminal, a line that counts; elsewhere, a line for each stage when it begins. On standard error."""

    def __init__(self) -> None:
        self._counts = is_terminal(sys.stderr)
        self._stage = ""
        self._began = time.monotonic()

    def __call__(self, what: str, count: int, total: int) -> None:
        if self._counts:
            end = "\n" if count >= total else ""
            click.echo(f"\r\x1b[K{what}: {count:,} of {total:,}{end}", nl=False, err=True)
        elif what != self._stage:
            click.echo(f"{(time.monotonic() - self._began) / 60:5.1f} min  {what}: {total:,}", err=True)
        self._stage = what


def print_skipped(lines: Sequence[str]) -> None:
    if lines:
        click.echo(f"{len(lines):,} files are left out; the report lists them.", err=True)


def print_main_table(findings: Findings, plan: EvaluationPlan) -> None:
    """R@1 of each index, copy detection, activation variants, and the mask against the same bound for all pixels."""
    click.echo(f"\n{'R@1, average of fourteen edits':<34}{'passive':>9}{'activated':>11}   {'ms':>8}")
    indexes = [(index, nprobe) for index in (plan.main, *plan.others) for nprobe in findings.nprobes_of(index)]
    ms = {(row.index, row.nprobe): row.ms_per_query for row in findings.searches}
    for index, nprobe in (("Flat", 0), *indexes):
        rows = [r for r in findings.recall if (r.index, r.nprobe) == (index, nprobe)]
        shares = {row.activated: f"{row.average:.3f}" for row in rows}
        name = f"{index}, nprobe {nprobe}" if nprobe else "no index"
        click.echo(f"{name:<34}{shares.get(False, ''):>9}{shares.get(True, ''):>11}   {ms[index, nprobe]:>8.3f}")
    areas = {a: f"{found.average_precision:.3f}" for a, found in findings.detections.items()}
    click.echo(f"{f'μAP, {plan.main}, nprobe 1':<34}{areas[False]:>9}{areas[True]:>11}")
    _print_verdicts(findings)
    if findings.variants:
        _print_options(findings)


def _print_options(findings: Findings) -> None:
    """Activation variants, and the mask against the same bound for all pixels."""
    click.echo(f"\n{'activation, first ' + str(findings.variants[0].images) + ' images':<43}{'R@1':>11}   {'ms':>8}")
    for row in findings.variants:
        click.echo(f"{row.variant:<43}{row.recall_at_1:>11.3f}   {row.ms_per_image:>8.1f}   {row.psnr_db:.2f} dB")
    _print_comparisons(findings)


def _print_verdicts(findings: Findings) -> None:
    """What a user gets: beside R@1, copies that are found and called a match, at two rates of false matches."""
    head = f"{'R@1':>9}{'matched':>9}{'originals':>11}   {'false matches':>14}"
    click.echo(f"\n{'found and matched':<34}{head}")
    for row in findings.verdicts:
        name = f"{'activated' if row.activated else 'passive'}, nprobe {row.nprobe}, at {row.fpr:.1%}"
        within = f"({row.false_matches_low:.2%} to {row.false_matches_high:.2%})"
        click.echo(
            f"{name:<34}{row.recall_at_1:>9.3f}{row.matched:>9.3f}{row.originals:>11.3f}"
            f"   {row.false_matches:>6.2%} {within}"
        )


def _print_comparisons(findings: Findings) -> None:
    from workers.evaluation.compare import BOUND, MASK, MEASURES, compare  # noqa: PLC0415  # loads torch: not for `aii --help`

    click.echo(f"\n{'mask against plain bound':<34}{'mask':>9}{'bound':>11}")
    for measure in MEASURES:
        _, name, unit, digits = measure
        compared = compare(findings.strengths, measure)
        if compared is None:
            click.echo(f"the curves over {name} do not overlap")
            continue
        mask, bound = (compared.recall[mask] for mask in (MASK, BOUND))
        click.echo(f"{f'R@1 at {name} {compared.at:.{digits}f}{unit}':<34}{mask:>9.3f}{bound:>11.3f}")
        mask, bound = (compared.figure[mask] for mask in (MASK, BOUND))
        click.echo(f"{f'{name} at R@1 {compared.at_recall:.3f}':<34}{mask:>9.{digits + 1}f}{bound:>11.{digits + 1}f}")
