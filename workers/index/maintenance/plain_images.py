"""Images that say nothing: pages of text, flat colours, gradients and noise, drawn for the background of a collection.

Each represents a kind of image of which all look alike to an extractor, so that a query of that kind finds itself in a
crowd, and no match of it counts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = ["plain_images"]

_Colour = tuple[int, int, int]

_PAGES_OF_TEN: Final = 7
_LETTERS: Final = "eeettaaooinnshrdlucmfwypvbgkjqxz"
_SHAPES: Final = ((595, 842), (612, 792), (842, 595), (640, 480), (480, 640), (720, 720), (420, 900))
_WHITE_OF_TEN: Final = 4
_DARK_OF_TEN: Final = 3
_SCANNED: Final = 0.4  # share of the pages


def plain_images(count: int, seed: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
    """`count` images (H, W, 3) uint8, the same ones for the same seed."""
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        yield np.asarray(_page(draw)) if number % 10 < _PAGES_OF_TEN else _surface(draw)


def _page(draw: random.Random) -> Image.Image:
    """A page of text, in one to three columns, with headings and paragraphs; as printed, on a screen, or scanned."""
    width, height = (round(side * draw.uniform(0.6, 1.3)) for side in draw.choice(_SHAPES))
    paper, ink = _paper_and_ink(draw)
    page = Image.new("RGB", (width, height), paper)
    pen, size = ImageDraw.Draw(page), draw.randint(8, 26)
    font, margin, columns = ImageFont.load_default(size), round(width * draw.uniform(0.04, 0.16)), draw.randint(1, 3)
    column = (width - margin * (columns + 1)) / columns
    top = round(height * draw.uniform(0.04, 0.15))
    if draw.random() < 0.5:
        pen.text((margin, top), _words(draw, 3), fill=ink, font=ImageFont.load_default(round(size * 2)))
        top += size * 4
    bottom = height * (draw.uniform(0.3, 0.95) if draw.random() < 0.4 else 0.94)
    weight = draw.choice((0, 0, 0, 1)) if size > 12 else 0
    for number in range(columns):
        left, y = margin + number * (column + margin), float(top)
        while y < bottom:
            if draw.random() > 0.08:
                pen.text((left, y), _line(draw, column, font), fill=ink, font=font, stroke_width=weight)
            y += size * draw.choice((1.2, 1.2, 1.2, 1.6))
    return _as_found(draw, page, paper)


def _paper_and_ink(draw: random.Random) -> tuple[_Colour, _Colour]:
    """White paper, dark screens, and tinted paper; with ink that can be read on it."""
    kind = draw.randrange(10)
    if kind < _WHITE_OF_TEN:
        return (255, 255, 255), draw.choice(((0, 0, 0), (0, 0, 0), (51, 51, 68)))
    if kind < _WHITE_OF_TEN + _DARK_OF_TEN:
        return _colour(draw, 0, 50), _colour(draw, 190, 255)
    return _colour(draw, 215, 255), _colour(draw, 0, 80)


def _colour(draw: random.Random, least: int, most: int) -> _Colour:
    return draw.randint(least, most), draw.randint(least, most), draw.randint(least, most)


def _as_found(draw: random.Random, page: Image.Image, paper: _Colour) -> Image.Image:
    """Narrower or wider letters, perhaps slanted; laid askew and out of focus."""
    narrow, slant = draw.uniform(0.7, 1.3), draw.choice((0.0, 0.0, 0.2))
    page = page.resize((max(1, round(page.width * narrow)), page.height), Image.Resampling.BILINEAR)
    sheared = (1.0, slant, -slant * page.height / 2, 0.0, 1.0, 0.0)
    page = page.transform(page.size, Image.Transform.AFFINE, sheared, Image.Resampling.BILINEAR, fillcolor=paper)
    if draw.random() < _SCANNED:
        page = page.rotate(draw.uniform(-3, 3), Image.Resampling.BILINEAR, fillcolor=paper)
        page = page.filter(ImageFilter.GaussianBlur(draw.uniform(0, 1.2)))
    return page


def _line(draw: random.Random, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Words that fill a width in pixels, or part of it at the end of a paragraph."""
    text, width = "", width * (draw.uniform(0.2, 1) if draw.random() < 0.12 else 1)
    while font.getlength(longer := f"{text}{_words(draw, 1)} ") < width:
        text = longer
    return text


def _words(draw: random.Random, count: int) -> str:
    return " ".join("".join(draw.choices(_LETTERS, k=draw.randint(1, 10))) for _ in range(count))


def _surface(draw: random.Random) -> npt.NDArray[np.uint8]:
    """One colour, a gradient between two, or noise around one."""
    height, width = draw.randint(80, 600), draw.randint(80, 600)
    first, second = (np.array([draw.randint(0, 255) for _ in range(3)], dtype=np.float64) for _ in range(2))
    kind = draw.randint(0, 3)
    pixels = np.broadcast_to(first, (height, width, 3)).copy()
    if kind == 1:
        pixels += (second - first) * np.linspace(0, 1, width)[None, :, None]
    elif kind == 2:
        pixels += (second - first) * np.linspace(0, 1, height)[:, None, None]
    elif kind == 3:
        noise = np.random.default_rng(draw.randint(0, 2**32))
        pixels += noise.normal(0, draw.choice((2, 6, 20)), pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)
