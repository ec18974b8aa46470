"""Real photographs for tests: those that scikit-image carries, and small crops of them when many are wanted."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

_NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")


@cache
def photographs() -> dict[str, bytes]:
    """The files, by name."""
    package = importlib.util.find_spec("skimage")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "data"
    return {name: (folder / name).read_bytes() for name in _NAMES}


@cache
def pixels(name: str) -> np.ndarray:
    """One photograph as (H, W, 3) uint8, read-only."""
    return np.asarray(Image.open(io.BytesIO(photographs()[name])).convert("RGB"))


def crops(count: int, side: int = 128) -> list[bytes]:
    """`count` different small photographs, as JPEG files: squares cut from those that are larger, at seeded places."""
    made, more = _crops(side)
    made.extend(islice(more, max(0, count - len(made))))
    return made[:count]


@cache
def _crops(side: int) -> tuple[list[bytes], Iterator[bytes]]:
    """Those that were made so far, and the next ones."""
    random = np.random.default_rng(0)
    large = [image for name in photographs() if min((image := pixels(name)).shape[:2]) > side]
    return [], (_crop(image, side, random) for image in cycle(large))


def _crop(image: np.ndarray, side: int, random: np.random.Generator) -> bytes:
    top, left = (int(random.integers(0, extent - side)) for extent in image.shape[:2])
    buffer = io.BytesIO()
    Image.fromarray(image[top : top + side, left : left + side]).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
