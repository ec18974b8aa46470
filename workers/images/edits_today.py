"""Edits of today, beside those of the paper: what generative tools, screens and chat programs do to images.

Nothing is downloaded: classical operators stand in for generative models, in what they keep of an image (its layout and
colours) and what they take (its texture). As in :mod:`workers.images.edits`, an edit depends on the image and the seed
only, so that an original and its protected version are edited alike.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from workers.images.edits import Edit

__all__ = ["TODAY"]

Floats = npt.NDArray[np.float32]

_CAPTIONS: Final = ("so true!!", "look at this", "monday again")
_COLOURS: Final = ("#e4572e", "#17bebb", "#ffc914", "#76b041", "#5e4ae3")


def _floats(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32)


def _image(pixels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _fitting(image: Image.Image, share: float) -> int:
    """A length in pixels that is a share of the shorter side, and at least 1."""
    return max(1, round(share * min(image.size)))


def _denoised(image: Image.Image, seed: int) -> Image.Image:
    """Strong denoising, as a phone's: texture goes, edges stay."""
    return _smoothed(image, _fitting(image, 0.02), 400.0)


def _smoothed(image: Image.Image, radius: int, tolerance: float) -> Image.Image:
    """A guided filter of the image by itself (He et al., 2013): variances below the tolerance are taken for noise."""
    pixels = _floats(image)
    mean, square = _boxed(pixels, radius), _boxed(pixels**2, radius)
    variance = np.maximum(square - mean**2, 0)
    share = variance / (variance + tolerance)
    return _image(_boxed(share, radius) * pixels + _boxed(mean * (1 - share), radius))


def _boxed(pixels: Floats, radius: int) -> Floats:
    """The means over windows of 2 · radius + 1 pixels a side, smaller at the borders."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        sums = np.cumsum(pixels, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis=axis)
        first = np.maximum(np.arange(length) - radius, 0)
        last = np.minimum(np.arange(length) + radius + 1, length)
        counts = (last - first).astype(np.float32)
        counts = counts[:, None, None] if axis == 0 else counts[None, :, None]
        pixels = ((np.take(sums, last, axis) - np.take(sums, first, axis)) / counts).astype(np.float32)
    return pixels


def _regenerated(image: Image.Image, seed: int) -> Image.Image:
    """What image-to-image models keep: the layout; noise is added at a third of the size, and smoothed away."""
    small = image.resize((max(8, image.width // 3), max(8, image.height // 3)), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(seed).normal(0, 18, (small.height, small.width, 3)).astype(np.float32)
    smooth = _smoothed(_image(_floats(small) + noise), 2, 1_500.0)
    return smooth.resize(image.size, Image.Resampling.BICUBIC).filter(ImageFilter.UnsharpMask(3, 120, 2))


def _painted(image: Image.Image, seed: int) -> Image.Image:
    """A painter's filter: few colours in flat areas with sharp edges, and their outlines."""
    flat = image.filter(ImageFilter.ModeFilter(5)).filter(ImageFilter.MedianFilter(5))
    poster = ImageOps.posterize(flat, 3)
    lines = ImageOps.invert(ImageOps.autocontrast(flat.convert("L").filter(ImageFilter.FIND_EDGES), cutoff=2))
    return Image.blend(poster, ImageChops.multiply(poster, lines.convert("RGB")), 0.6)


def _inpainted(image: Image.Image, seed: int) -> Image.Image:
    """An object of a sixth of the area is replaced by its surroundings, blurred, with grain."""
    draw = random.Random(seed)
    width, height = (max(1, round(0.41 * side)) for side in image.size)
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((left, top, left + width, top + height), fill=255)
    filled = ImageOps.mirror(image).filter(ImageFilter.GaussianBlur(_fitting(image, 0.06)))
    grain = np.random.default_rng(seed).normal(0, 4, (image.height, image.width, 1)).astype(np.float32)
    return Image.composite(
        _image(_floats(filled) + grain), image, mask.filter(ImageFilter.GaussianBlur(_fitting(image, 0.01)))
    )


def _outpainted(image: Image.Image, seed: int) -> Image.Image:
    """The picture goes on beyond its frame, by a quarter a side: mirrored, and more and more blurred."""
    across, down = max(1, image.width // 4), max(1, image.height // 4)
    padded = np.pad(np.asarray(image), ((down, down), (across, across), (0, 0)), mode="symmetric")
    canvas = Image.fromarray(padded).filter(ImageFilter.GaussianBlur(_fitting(image, 0.03)))
    canvas.paste(image, (across, down))
    return canvas


def _perspective(image: Image.Image, seed: int) -> Image.Image:
    """Seen from an angle: each corner moves inwards by up to 12 % of a side, on a dark table."""
    draw, (width, height) = random.Random(seed), image.size
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    moved = [(x + _inwards(x, width, draw), y + _inwards(y, height, draw)) for x, y in corners]
    data = _homography(moved, corners)
    return image.transform(image.size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC, fillcolor="#2b2622")


def _inwards(at: float, side: int, draw: random.Random) -> float:
    return draw.uniform(0, 0.12) * side * (1 if at == 0 else -1)


def _homography(seen: list[tuple[float, float]], real: list[tuple[float, float]]) -> list[float]:
    """The eight coefficients that Pillow takes, which send each seen point to the real one."""
    rows, sides = [], []
    for (x, y), (u, v) in zip(seen, real, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        sides += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(sides))]


def _screen_photo(image: Image.Image, seed: int) -> Image.Image:
    """A photograph of a screen: from an angle, with moiré, a gradient of light, a little blur, and JPEG."""
    draw = random.Random(seed)
    seen = _floats(_perspective(image, seed))
    y, x = np.mgrid[: image.height, : image.width].astype(np.float32)
    angle, period = draw.uniform(0.1, 1.4), draw.uniform(5, 11)
    along = x * math.cos(angle) + y * math.sin(angle)
    bend = 0.02 * np.sin(2 * math.pi * y / image.height) * image.width
    stripes = 1 + 0.09 * np.sin(2 * math.pi * (along + bend) / period)
    channels = np.stack([stripes, np.roll(stripes, 1, 1), np.roll(stripes, 2, 1)], axis=2)
    light = 0.85 + 0.3 * (x / image.width * draw.random() + y / image.height * draw.random())
    shown = _image(seen * channels * light[..., None] + 8)
    return _jpeg(shown.filter(ImageFilter.GaussianBlur(0.7)), 75)


def _collage(image: Image.Image, seed: int) -> Image.Image:
    """One of four pictures in a square; the others are flat shapes on colours."""
    draw, (width, height) = random.Random(seed), image.size
    half, place = (max(1, width // 2), max(1, height // 2)), random.Random(seed).randrange(4)
    canvas = Image.new("RGB", (2 * half[0], 2 * half[1]))
    for i in range(4):
        tile = image.resize(half, Image.Resampling.LANCZOS) if i == place else _other_picture(half, draw)
        canvas.paste(tile, ((i % 2) * half[0], (i // 2) * half[1]))
    return canvas


def _other_picture(size: tuple[int, int], draw: random.Random) -> Image.Image:
    """Overlapping ellipses, smoothed: as busy as a photograph."""
    tile = Image.new("RGB", size, draw.choice(_COLOURS))
    pen = ImageDraw.Draw(tile)
    for _ in range(12):
        x, y = draw.randint(0, size[0]), draw.randint(0, size[1])
        across, down = draw.randint(1, max(1, size[0] // 2)), draw.randint(1, max(1, size[1] // 2))
        pen.ellipse((x - across, y - down, x + across, y + down), fill=draw.choice(_COLOURS))
    return tile.filter(ImageFilter.GaussianBlur(max(1, min(size) // 60)))


def _stickers(image: Image.Image, seed: int) -> Image.Image:
    """Three stickers and a caption with an outline, as stories of chat programs have them."""
    draw, edited = random.Random(seed), image.copy()
    pen, side = ImageDraw.Draw(edited), _fitting(image, 0.22)
    for _ in range(3):
        x, y = draw.randint(0, max(0, image.width - side)), draw.randint(0, max(0, image.height - side))
        pen.ellipse((x, y, x + side, y + side), fill=draw.choice(_COLOURS), outline="white", width=max(1, side // 12))
        smile = (x + side // 4, y + side // 4, x + 3 * side // 4, y + 3 * side // 4)
        pen.arc(smile, 20, 160, fill="black", width=max(1, side // 14))
    font, caption = ImageFont.load_default(max(6, _fitting(image, 0.09))), draw.choice(_CAPTIONS)
    at = (image.width / 2, draw.uniform(0.15, 0.85) * image.height)
    pen.text(at, caption, "white", font, "mm", stroke_width=2, stroke_fill="black")
    return edited


def _video_frame(image: Image.Image, seed: int) -> Image.Image:
    """A frame of a small video: an even size, limited range, colours at a quarter, coarse blocks twice, and bars."""
    width, height = (max(16, side // 2 // 2 * 2) for side in image.size)
    frame = image.resize((width, height), Image.Resampling.BILINEAR)
    for shift in (0, 4):  # the second generation's blocks lie elsewhere
        moved = ImageChops.offset(frame, shift, shift)
        frame = ImageChops.offset(_jpeg(moved, 22), -shift, -shift)
    limited = _floats(frame) * (219 / 255) + 16
    bars = Image.new("RGB", (width, height + 2 * (height // 8)), "black")
    bars.paste(_image(limited), (0, height // 8))
    return bars


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer, formats=("JPEG",)).convert("RGB")


_EDITS: Final[dict[str, Callable[[Image.Image, int], Image.Image]]] = {
    "denoise": _denoised,
    "regenerate": _regenerated,
    "paint": _painted,
    "inpaint": _inpainted,
    "outpaint": _outpainted,
    "perspective": _perspective,
    "screen_photo": _screen_photo,
    "collage": _collage,
    "stickers": _stickers,
    "video_frame": _video_frame,
}
TODAY: Mapping[str, Edit] = MappingProxyType(_EDITS)
