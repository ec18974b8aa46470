"""The difference of two images, to be looked at; beside `images`, as Flower shows it and has no numpy."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageChops

__all__ = ["AMPLIFIED", "difference"]

AMPLIFIED: Final = 10


def difference(original: Image.Image, protected: Image.Image) -> Image.Image:
    """(protected − original) × 10 around mid-grey, so that both directions show; both images in RGB, of one size."""
    brighter = ImageChops.subtract(protected, original).point(lambda v: v * AMPLIFIED)
    darker = ImageChops.subtract(original, protected).point(lambda v: v * AMPLIFIED)
    grey = Image.new("RGB", original.size, (128, 128, 128))
    return ImageChops.subtract(ImageChops.add(grey, brighter), darker)
