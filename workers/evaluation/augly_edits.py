"""The paper's own random edit: one to four of AugLy's edits at random strengths (ICLR 2023, evaluation protocol).

AugLy 1.0 is of 2022. With today's Pillow its perspective transform fails, and its shuffling of pixels seeds numpy's
generator for the whole process: these two are ours, the others are AugLy's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFilter

from tasks.errors import InvalidRequest

__all__ = ["augly_random"]

try:
    import augly.image as augly
    from augly.utils import EMOJI_PATH, FONT_PATH
except ModuleNotFoundError as error:
    raise InvalidRequest(
        f"--augly needs the module {error.name}: pip install 'active-image-indexing[worker,evaluation]'."
    ) from error
except ImportError as error:  # python-magic looks for it when it is imported
    raise InvalidRequest(
        f"AugLy cannot be used here ({error}): install the system's libmagic (Debian and Ubuntu: libmagic1)."
    ) from error

Draw = random.Random
_COUNTS: Final = (1, 2, 3, 4)
_LIKELINESS: Final = (0.1, 0.2, 0.3, 0.4)
_LETTERS: Final = 1_000
_LEAST_SIDE: Final = 16  # for a letter of a tenth of it


def augly_random(image: Image.Image, seed: int) -> Image.Image:
    """One to four of AugLy's edits, none twice, drawn from the seed; images that become too small for one are spared
    it."""
    draw = random.Random(seed)
    count = draw.choices(_COUNTS, _LIKELINESS)[0]
    for edit in draw.sample(_EDITS, count):
        if min(image.size) >= _LEAST_SIDE:
            image = edit(image, draw).convert("RGB")
    return image


def _emoji(image: Image.Image, draw: Draw) -> Any:
    place = {"x_pos": draw.uniform(0, 0.8), "y_pos": draw.uniform(0, 0.8)}
    return augly.overlay_emoji(image, emoji_path=EMOJI_PATH, emoji_size=draw.uniform(0.1, 0.3), **place)


def _text(image: Image.Image, draw: Draw) -> Any:
    letters = [draw.randrange(_LETTERS) for _ in range(draw.randint(5, 15))]
    place = {"x_pos": draw.uniform(0, 0.4), "y_pos": draw.uniform(0, 0.8)}
    return augly.overlay_text(image, text=letters, font_file=FONT_PATH, font_size=draw.uniform(0.1, 0.3), **place)


def _few_colours(image: Image.Image, draw: Draw) -> Any:
    return augly.convert_color(image, mode="P", colors=draw.randint(2, 16))


def _edges(image: Image.Image, draw: Draw) -> Any:
    return augly.apply_pil_filter(image, filter_type=ImageFilter.EDGE_ENHANCE_MORE)


def _shuffled(image: Image.Image, draw: Draw) -> Image.Image:
    """A part of all pixels change places."""
    pixels = np.array(image).reshape(-1, 3)
    generator = np.random.default_rng(draw.getrandbits(32))
    chosen = generator.choice(len(pixels), int(draw.uniform(0.1, 0.3) * len(pixels)), replace=False)
    pixels[chosen] = pixels[generator.permutation(chosen)]
    return Image.fromarray(pixels.reshape(image.height, image.width, 3))


def _crop(image: Image.Image, draw: Draw) -> Any:
    side = draw.uniform(0.3, 0.6) ** 0.5
    left, top = draw.uniform(0, 1 - side), draw.uniform(0, 1 - side)
    return augly.crop(image, x1=left, y1=top, x2=left + side, y2=top + side)


def _perspective(image: Image.Image, draw: Draw) -> Image.Image:
    """Every corner moves by up to a fifth of the image's sides, inwards or outwards."""
    width, height = image.size
    corners = [(0, 0), (0, height), (width, height), (width, 0)]
    quad = [(x + draw.uniform(-0.2, 0.2) * width, y + draw.uniform(-0.2, 0.2) * height) for x, y in corners]
    return image.transform(image.size, Image.Transform.QUAD, [v for p in quad for v in p], Image.Resampling.BICUBIC)


_EDITS: Final[tuple[Callable[[Image.Image, Draw], Any], ...]] = (
    lambda image, draw: augly.brightness(image, factor=draw.uniform(0.1, 1.9)),
    lambda image, draw: augly.grayscale(image),
    lambda image, draw: augly.saturation(image, factor=draw.uniform(2, 5)),
    _emoji,
    _text,
    lambda image, draw: augly.blur(image, radius=draw.uniform(5, 10)),
    _few_colours,
    lambda image, draw: augly.encoding_quality(image, quality=draw.randint(5, 25)),
    _edges,
    lambda image, draw: augly.pixelization(image, ratio=draw.uniform(0.2, 0.5)),
    _shuffled,
    _crop,
    lambda image, draw: augly.hflip(image),
    lambda image, draw: augly.change_aspect_ratio(image, ratio=draw.uniform(0.5, 2)),
    lambda image, draw: augly.overlay_onto_screenshot(image),
    lambda image, draw: augly.pad_square(image),
    _perspective,
    lambda image, draw: augly.rotate(image, degrees=draw.uniform(-90, 90)),
)
