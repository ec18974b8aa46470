"""The output of ``aii demo``: the table of recall, and a sheet of pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from PIL import Image

from tasks.results import ActivationResult
from workers.evaluation.report.sheet import Shown, contact_sheet
from workers.index.maintenance.starter import read_card

Photographed = tuple[str, Image.Image, Image.Image, ActivationResult]  # name, original, protected


@dataclass(frozen=True)
class Row:
    """Recall@1 of one edit, unprotected and protected."""

    edit: str
    passive: float
    activated: float


def write_report(out: Path, photos: Sequence[Photographed], rows: Sequence[Row]) -> None:
    """Print the table, write ``recall.csv`` and ``sheet.png``, and print where the files are."""
    out.mkdir(parents=True, exist_ok=True)
    average = Row("average", _mean([r.passive for r in rows]), _mean([r.activated for r in rows]))
    _print_table([*rows, average], photos)
    _write_csv(out / "recall.csv", [*rows, average])
    shown = [
        Shown(name, before, after, r.quality.psnr_db, r.quality.ssim, r.quality.linf)
        for name, before, after, r in photos
    ]
    contact_sheet(shown).save(out / "sheet.png")
    places = {"Protected images": out / "protected", "Pictures": out / "sheet.png", "Table": out / "recall.csv"}
    click.echo("\n" + "\n".join(f"{name + ':':18}{path}" for name, path in places.items()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _print_table(rows: Sequence[Row], photos: Sequence[Photographed]) -> None:
    card = read_card()
    among = f"among {card.count + len(photos):,} images ({card.factory}, nprobe 1)"
    click.echo(f"\nRecall@1 of edited copies of {len(photos)} photographs {among}\n")
    click.echo(f"  {'edit':16}{'passive':>9}{'activated':>11}")
    for row in rows:
        if row.edit == "average":
            click.echo(f"  {'-' * 36}")
        click.echo(f"  {row.edit:16}{row.passive:9.3f}{row.activated:11.3f}")
    psnr = [result.quality.psnr_db for *_, result in photos if result.quality.psnr_db is not None]
    passive = sum(1 for *_, result in photos if result.status == "passive")
    if psnr:
        verified = f"{len(photos) - passive} of {len(photos)} files verified"
        click.echo(f"\n  PSNR {_mean(psnr):.1f} dB on average, {min(psnr):.1f} at least; {verified}.")


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["edit", "passive", "activated"])
        writer.writerows([row.edit, f"{row.passive:.4f}", f"{row.activated:.4f}"] for row in rows)
