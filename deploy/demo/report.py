"""The output of ``aii demo``: the table of what was found and matched, and a sheet of pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import click
from PIL import Image

from tasks.output_files import check_folder, refuse_existing
from tasks.results import ActivationResult, ImageResult, QueryResult
from workers.evaluation.report.sheet import Shown, contact_sheet
from workers.index.verdicts.calibration import wilson

Photographed = tuple[str, Image.Image, Image.Image, ActivationResult]  # name, original, protected


# Beside the rate of false matches that a collection's verdicts keep.
STRICT_FPR: Final = 0.001

PROTECTED: Final = "protected"  # the folder of protected files
_PICTURES: Final = "sheet.png"
_TABLE: Final = "recall.csv"
_COLUMNS: Final = ("edit", "passive", "activated", "matched_at_1_percent", "matched_at_0.1_percent")


@dataclass
class CopiesFound:
    """How many of some edited copies were found.

    Attributes:
        copies: how many were asked for.
        first: whose asset is nearer than every other asset and every reference, as R@1 asks.
        matched: whose asset is the first match and called a match, as the collection is calibrated (1 %).
        strictly: the same at :data:`STRICT_FPR`.
    """

    copies: int = 0
    first: int = 0
    matched: int = 0
    strictly: int = 0

    def count(self, answer: ImageResult, asset_id: str) -> None:
        """Add one copy and what its query ended with."""
        self.copies += 1
        if not isinstance(answer, QueryResult) or not answer.matches or answer.matches[0].asset_id != asset_id:
            return
        facts = answer.assessment
        reference = facts.nearest_distractor if facts else None
        self.first += reference is None or answer.matches[0].distance <= reference
        self.matched += answer.verdict == "match"
        rate = facts.false_match_rate if facts else None
        self.strictly += answer.verdict == "match" and rate is not None and rate <= STRICT_FPR

    def __add__(self, other: CopiesFound) -> CopiesFound:
        return CopiesFound(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Row:
    """What was found of one edit, unprotected and protected."""

    edit: str
    passive: CopiesFound
    activated: CopiesFound

    @property
    def counts(self) -> list[tuple[int, int]]:
        """How many of how many: R@1 passive and activated; protected copies found and matched, at both rates."""
        passive, activated = self.passive, self.activated
        counted = (activated.first, activated.matched, activated.strictly)
        return [(passive.first, passive.copies), *((count, activated.copies) for count in counted)]

    @property
    def shares(self) -> list[float]:
        return [count / max(total, 1) for count, total in self.counts]


def write_report(out: Path, photos: Sequence[Photographed], rows: Sequence[Row], among: str) -> None:
    """Print the table, write ``recall.csv`` and ``sheet.png``, and print where the files are; `among` says in words
    what was searched."""
    out.mkdir(parents=True, exist_ok=True)
    average = Row(
        "average", sum((r.passive for r in rows), CopiesFound()), sum((r.activated for r in rows), CopiesFound())
    )
    _print_table([*rows, average], photos, among)
    _write_csv(out / _TABLE, [*rows, average])
    shown = [
        Shown(name, before, after, r.quality.psnr_db, r.quality.ssim, r.quality.linf)
        for name, before, after, r in photos
    ]
    contact_sheet(shown).save(out / _PICTURES)
    places = {"Protected images": out / PROTECTED, "Pictures": out / _PICTURES, "Table": out / _TABLE}
    click.echo("\n" + "\n".join(f"{name + ':':18}{path}" for name, path in places.items()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _print_table(rows: Sequence[Row], photos: Sequence[Photographed], among: str) -> None:
    click.echo(f"\nRecall@1 of edited copies of {len(photos)} photographs among {among}\n")
    click.echo(f"  {'':16}{'R@1':>11}{'R@1':>11}   found and matched, activated")
    click.echo(f"  {'edit':16}{'passive':>11}{'activated':>11}{'at 1 %':>13}{'at 0.1 %':>13}")
    for row in rows:
        if row.edit == "average":
            click.echo(f"  {'-' * 64}")
        passive, activated, matched, strictly = row.shares
        click.echo(f"  {row.edit:16}{passive:11.3f}{activated:11.3f}{matched:13.3f}{strictly:13.3f}")
    intervals = [f"{low:.2f}-{high:.2f}" for low, high in (wilson(*counts) for counts in rows[-1].counts)]
    click.echo(f"  {'95 % interval':16}{intervals[0]:>11}{intervals[1]:>11}{intervals[2]:>13}{intervals[3]:>13}")
    click.echo("\n  Found and matched: the right asset comes first, and is called a match at a threshold that")
    click.echo("  1 % or 0.1 % of unrelated images pass. Intervals are Wilson's, as if all copies were independent.")
    psnr = [result.quality.psnr_db for *_, result in photos if result.quality.psnr_db is not None]
    passive = sum(1 for *_, result in photos if result.status == "passive")
    if psnr:
        verified = f"{len(photos) - passive} of {len(photos)} files verified"
        click.echo(f"\n  PSNR {_mean(psnr):.1f} dB on average, {min(psnr):.1f} at least; {verified}.")


def check_folder_of_report(out: Path, *, force: bool) -> None:
    """Raise UsageError for a folder that cannot be written, or that has files of a report's names, unless they are an
    earlier report's or `force` is set."""
    check_folder(out)
    if not (force or _is_report(out)):
        refuse_existing([out / name for name in (PROTECTED, _PICTURES, _TABLE)])


def _is_report(out: Path) -> bool:
    try:
        with (out / _TABLE).open(newline="", encoding="utf-8") as file:
            return file.readline().startswith(",".join(_COLUMNS[:3]))  # the others are newer
    except (OSError, ValueError):
        return False


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows([row.edit, *(f"{share:.4f}" for share in row.shares)] for row in rows)
