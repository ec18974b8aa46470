"""A contact sheet: original, protected, and ten times their difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from workers.difference import AMPLIFIED, difference

__all__ = ["Shown", "contact_sheet"]

_THUMB: Final = 320
_GAP: Final = 12
_TITLE: Final = 26
_ROWS: Final = 12


class Shown(NamedTuple):
    """One photograph: both images in RGB, of one size; `psnr_db` is None when nothing changed, `linf` is in grey
    levels."""

    name: str
    original: Image.Image
    protected: Image.Image
    psnr_db: float | None
    ssim: float
    linf: int


def contact_sheet(photos: Sequence[Shown]) -> Image.Image:
    """The first photographs, one a row."""
    rows = [[_thumbnail(one.original), _thumbnail(one.protected), _changed(one)] for one in photos[:_ROWS]]
    heights = [max(picture.height for picture in row) + _TITLE + _GAP for row in rows]
    sheet = Image.new("RGB", (3 * _THUMB + 4 * _GAP, sum(heights) + _GAP), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(15), _GAP
    for one, row, height in zip(photos, rows, heights, strict=False):
        # Pillow's own font has neither the sign of infinity nor that of multiplication.
        figures = f"{one.psnr_db:.1f} dB, SSIM {one.ssim:.3f}, L-inf {one.linf}" if one.psnr_db else "unchanged"
        titles = (one.name, f"protected: {figures}", f"{AMPLIFIED} x difference, around grey")
        for column, (title, picture) in enumerate(zip(titles, row, strict=True)):
            left = _GAP + column * (_THUMB + _GAP)
            draw.text((left, top), title, fill="black", font=font)
            sheet.paste(picture, (left, top + _TITLE))
        top += height
    return sheet


def _changed(one: Shown) -> Image.Image:
    return _thumbnail(difference(one.original, one.protected))


def _thumbnail(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((_THUMB, _THUMB), Image.Resampling.LANCZOS)
    return copy
