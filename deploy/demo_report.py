"""What ``aii demo`` leaves behind: the table, and a sheet of pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from PIL import Image, ImageChops, ImageDraw, ImageFont

from tasks.results import ActivationResult
from workers.index.starter import read_card

_THUMB: Final = 320
_GAP: Final = 12
_TITLE: Final = 26
_AMPLIFIED: Final = 10
_ROWS: Final = 12

Shown = tuple[str, Image.Image, Image.Image, ActivationResult]


@dataclass(frozen=True)
class Row:
    """Recall@1 of one edit, unprotected and protected."""

    edit: str
    passive: float
    activated: float


def write_report(out: Path, photos: Sequence[Shown], rows: Sequence[Row]) -> None:
    """Print the table and write ``recall.csv``, ``sheet.png`` and say where everything is."""
    out.mkdir(parents=True, exist_ok=True)
    average = Row("average", _mean([r.passive for r in rows]), _mean([r.activated for r in rows]))
    _print_table([*rows, average], photos)
    _write_csv(out / "recall.csv", [*rows, average])
    sheet(photos).save(out / "sheet.png")
    places = {"Protected images": out / "protected", "Pictures": out / "sheet.png", "Table": out / "recall.csv"}
    click.echo("\n" + "\n".join(f"{name + ':':18}{path}" for name, path in places.items()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _print_table(rows: Sequence[Row], photos: Sequence[Shown]) -> None:
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
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["edit", "passive", "activated"])
        writer.writerows([row.edit, f"{row.passive:.4f}", f"{row.activated:.4f}"] for row in rows)


def sheet(photos: Sequence[Shown]) -> Image.Image:
    """Original, protected, and ten times their difference, for the first photographs, one a row."""
    shown = photos[:_ROWS]
    picture = Image.new("RGB", (3 * _THUMB + 4 * _GAP, len(shown) * (_THUMB + _TITLE + _GAP) + _GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    top = _GAP
    for name, original, protected, result in shown:
        psnr = (
            "unchanged"
            if result.quality.psnr_db is None
            else f"PSNR {result.quality.psnr_db:.1f} dB, SSIM {result.quality.ssim:.3f}"
        )
        titles = (name, f"protected: {psnr}", f"{_AMPLIFIED} x difference, around grey")
        for column, (title, image) in enumerate(
            zip(titles, (original, protected, difference(original, protected)), strict=True)
        ):
            left = _GAP + column * (_THUMB + _GAP)
            draw.text((left, top), title, fill="black", font=font)
            picture.paste(_thumbnail(image), (left, top + _TITLE))
        top += _THUMB + _TITLE + _GAP
    return picture


def difference(original: Image.Image, protected: Image.Image) -> Image.Image:
    """(protected − original) × 10 around mid-grey, so that both directions show."""
    brighter = ImageChops.subtract(protected, original).point(lambda v: v * _AMPLIFIED)
    darker = ImageChops.subtract(original, protected).point(lambda v: v * _AMPLIFIED)
    grey = Image.new("RGB", original.size, (128, 128, 128))
    return ImageChops.subtract(ImageChops.add(grey, brighter), darker)


def _thumbnail(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((_THUMB, _THUMB), Image.Resampling.LANCZOS)
    return copy
