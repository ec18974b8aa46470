"""A contact sheet: original, protected, and ten times their difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFont

__all__ = ["Shown", "contact_sheet", "difference"]

_THUMB: Final = 320
_GAP: Final = 12
_TITLE: Final = 26
_AMPLIFIED: Final = 10
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
    shown = photos[:_ROWS]
    picture = Image.new("RGB", (3 * _THUMB + 4 * _GAP, len(shown) * (_THUMB + _TITLE + _GAP) + _GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    top = _GAP
    for one in shown:
        figures = f"{one.psnr_db:.1f} dB, SSIM {one.ssim:.3f}, L∞ {one.linf}" if one.psnr_db else "unchanged"
        titles = (one.name, f"protected: {figures}", f"{_AMPLIFIED} × difference, around grey")
        pictures = (one.original, one.protected, difference(one.original, one.protected))
        for column, (title, image) in enumerate(zip(titles, pictures, strict=True)):
            left = _GAP + column * (_THUMB + _GAP)
            draw.text((left, top), title, fill="black", font=font)
            picture.paste(_thumbnail(image), (left, top + _TITLE))
        top += _THUMB + _TITLE + _GAP
    return picture


def difference(original: Image.Image, protected: Image.Image) -> Image.Image:
    """(protected − original) × 10 around mid-grey, so that both directions show; both images in RGB, of one size."""
    brighter = ImageChops.subtract(protected, original).point(lambda v: v * _AMPLIFIED)
    darker = ImageChops.subtract(original, protected).point(lambda v: v * _AMPLIFIED)
    grey = Image.new("RGB", original.size, (128, 128, 128))
    return ImageChops.subtract(ImageChops.add(grey, brighter), darker)


def _thumbnail(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((_THUMB, _THUMB), Image.Resampling.LANCZOS)
    return copy
