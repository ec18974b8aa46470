"""The fourteen edits of the paper's evaluation, on PIL RGB images.

Source: Fernandez et al., "Active Image Indexing" (ICLR 2023), table 2 and appendix. Every edit takes an RGB image of
any size and returns a new RGB image; only ``random`` depends on the seed, and on nothing else: an original and its
protected version are edited alike under the same one (:func:`edit_seed`).
"""

import hashlib
import io
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

__all__ = ["EDITS", "MORE_EDITS", "Edit", "edit_seed"]

Edit = Callable[[Image.Image, int], Image.Image]

MEME_BAND = 0.25  # height of the caption band, as a part of the picture's height
MEME_CAPTION = "when you find the original"


def edit_seed(seed: int, name: str) -> int:
    """The seed for one image of many, by its name: the same for its original and for whatever is published of it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()[:8])


def _identity(image: Image.Image, seed: int) -> Image.Image:
    return image.copy()


def _contrast(image: Image.Image, seed: int, *, factor: float) -> Image.Image:
    edited: Image.Image = tvf.adjust_contrast(image, factor)
    return edited


def _brightness(image: Image.Image, seed: int, *, factor: float) -> Image.Image:
    edited: Image.Image = tvf.adjust_brightness(image, factor)
    return edited


def _hue(image: Image.Image, seed: int, *, turn: float) -> Image.Image:
    edited: Image.Image = tvf.adjust_hue(image, turn)
    return edited


def _blur(image: Image.Image, seed: int, *, kernel: int) -> Image.Image:
    """Gaussian blur; torchvision derives sigma from the kernel's size (2.0 px for 11)."""
    # The convolution pads by reflection, which needs a side of more than half the kernel.
    fitting = min(kernel, 2 * min(image.size) - 1)
    edited: Image.Image = tvf.gaussian_blur(image, [fitting, fitting])
    return edited


def _jpeg(image: Image.Image, seed: int, *, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer, formats=("JPEG",)).convert("RGB")


def _rotation(image: Image.Image, seed: int, *, degrees: float) -> Image.Image:
    """Counter-clockwise, on a canvas that grows to hold every corner; the new corners are black."""
    edited: Image.Image = tvf.rotate(image, degrees, interpolation=InterpolationMode.BILINEAR, expand=True)
    return edited


def _crop(image: Image.Image, seed: int, *, area: float) -> Image.Image:
    edited: Image.Image = tvf.center_crop(image, _sides(image, area))
    return edited


def _resize(image: Image.Image, seed: int, *, area: float) -> Image.Image:
    edited: Image.Image = tvf.resize(image, _sides(image, area), antialias=True)
    return edited


def _sides(image: Image.Image, area: float) -> list[int]:
    """Height and width that keep the aspect ratio and ``area`` (0..1] of the pixels."""
    side = math.sqrt(area)
    return [max(1, round(image.height * side)), max(1, round(image.width * side))]


def _meme(image: Image.Image, seed: int) -> Image.Image:
    """A white band with a black caption above the picture."""
    band = max(1, round(MEME_BAND * image.height))
    canvas = Image.new("RGB", (image.width, image.height + band), "white")
    canvas.paste(image, (0, band))
    font = _font_that_fits(0.9 * image.width, 0.7 * band)
    ImageDraw.Draw(canvas).text((image.width / 2, band / 2), MEME_CAPTION, fill="black", font=font, anchor="mm")
    return canvas


def _font_that_fits(width: float, height: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own scalable font, at the largest size whose caption fits into the box (in pixels)."""
    width_at_100 = ImageFont.load_default(100).getlength(MEME_CAPTION)
    return ImageFont.load_default(max(1.0, min(height, 100 * width / width_at_100)))


def _random(image: Image.Image, seed: int) -> Image.Image:
    """One to four edits of different families in random order, drawn from the seed."""
    draw = random.Random(seed)
    families = draw.sample(_FAMILIES, draw.randint(1, 4))
    for family in families:
        image = EDITS[draw.choice(family)](image, seed)
    return image


EDITS: Mapping[str, Edit] = MappingProxyType(
    {
        "identity": _identity,
        "contrast_0.5": partial(_contrast, factor=0.5),
        "contrast_2.0": partial(_contrast, factor=2.0),
        "brightness_0.5": partial(_brightness, factor=0.5),
        "brightness_2.0": partial(_brightness, factor=2.0),
        "hue_0.2": partial(_hue, turn=0.2),
        "blur_11": partial(_blur, kernel=11),
        "jpeg_50": partial(_jpeg, quality=50),
        "rotation_25": partial(_rotation, degrees=25),
        "rotation_90": partial(_rotation, degrees=90),
        "crop_0.5": partial(_crop, area=0.5),
        "resize_0.5": partial(_resize, area=0.5),
        "meme": _meme,
        "random": _random,
    }
)


def _mirror(image: Image.Image, seed: int) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _screenshot(image: Image.Image, seed: int) -> Image.Image:
    """The picture in a program of a phone: bars above and below, on white, as AugLy's `overlay_onto_screenshot`."""
    bar, gap = max(2, round(0.14 * image.height)), max(1, round(0.04 * image.width))
    canvas = Image.new("RGB", (image.width + 2 * gap, image.height + 3 * bar), "white")
    pen, text = ImageDraw.Draw(canvas), ImageFont.load_default(max(4.0, 0.45 * bar))
    pen.rectangle((0, 0, canvas.width, bar // 2), fill="#1f2933")
    pen.ellipse((gap, bar * 0.6, gap + bar * 0.75, bar * 1.35), fill="#9aa5b1")
    pen.text((gap + bar, bar), "someone · 2 h", fill="#1f2933", font=text, anchor="lm")
    canvas.paste(image, (gap, round(1.5 * bar)))
    for i in range(3):
        left = gap + i * 1.2 * bar
        top = canvas.height - bar
        pen.ellipse((left, top, left + 0.6 * bar, top + 0.6 * bar), outline="#1f2933", width=2)
    return canvas


# Measured beside the fourteen, and in no average. `aii query --views` is for mirrored copies.
MORE_EDITS: Mapping[str, Edit] = MappingProxyType({"mirror": _mirror, "screenshot": _screenshot})

# An edit and its opposite in one composition would cancel out, so each family gives at most one.
_FAMILIES = (
    ("contrast_0.5", "contrast_2.0"),
    ("brightness_0.5", "brightness_2.0"),
    ("hue_0.2",),
    ("blur_11",),
    ("jpeg_50",),
    ("rotation_25", "rotation_90"),
    ("crop_0.5",),
    ("resize_0.5",),
    ("meme",),
)
