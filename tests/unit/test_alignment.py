"""Where one picture lies in another."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.photographs import pixels
from workers.images.alignment import Place, align, thumbnail


def picture() -> Image.Image:
    return Image.fromarray(pixels("chelsea.png"))


def placed(copy: Image.Image) -> Place | None:
    return align(thumbnail(np.asarray(copy)), thumbnail(np.asarray(picture())))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarter_turns", range(4))
def test_a_part_that_was_turned_and_mirrored_is_laid_where_it_was_taken_from(
    mirrored: bool, quarter_turns: int
) -> None:
    width, height = picture().size
    copy = picture().crop((round(0.2 * width), round(0.1 * height), round(0.8 * width), round(0.9 * height)))
    copy = copy.rotate(-90 * quarter_turns, expand=True)  # what is to be undone, last one first
    place = placed(ImageOps.mirror(copy) if mirrored else copy)
    assert place is not None
    assert (place.mirrored, place.quarter_turns) == (mirrored, quarter_turns)
    found = (place.left, place.top, place.width, place.height)
    np.testing.assert_allclose(found, (0.2, 0.1, 0.6, 0.8), atol=0.06)
    assert place.correlation > 0.7


@pytest.mark.parametrize("name", ["coffee.png", "astronaut.png", "rocket.jpg"])
def test_another_picture_fits_nowhere(name: str) -> None:
    assert placed(Image.fromarray(pixels(name))) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (300, 200)])
def test_a_plain_picture_fits_nowhere(size: tuple[int, int]) -> None:
    assert placed(Image.new("RGB", size, "white")) is None
