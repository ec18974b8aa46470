"""A picture that came in few colours, and was changed, in few colours again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.images.model import Pixels

__all__ = ["reduced"]

# With more colours, fewer than four would be left for each, and the change would be lost: median cut over all pixels
# holds 0.74 to 1 of what it gains, at up to 24 levels of single pixels.
_DIVIDED_ONE_BY_ONE: Final = 64


def reduced(colours: Pixels, original: Pixels, count: int) -> tuple[Pixels, Pixels]:
    """Indices (H, W) and palette (N, 3), N at most `count`, of a picture RGB (H, W, 3).

    Up to 64 colours of the original are divided one by one, so that a pixel is off by no more than its change, however
    rare its colour is.
    """
    known = Image.fromarray(original).getcolors(_DIVIDED_ONE_BY_ONE)
    return _median_cut(colours, count) if known is None else _divided(colours, original, count, known)


def _divided(colours: Pixels, original: Pixels, count: int, known: Sequence[tuple[int, Any]]) -> tuple[Pixels, Pixels]:
    """`known` has each colour of the original, and how many pixels have it; the others' number goes by its root."""
    table = np.zeros(1 << 24, np.uint8)
    table[_keys(np.array([[colour for _, colour in known]], np.uint8))[0]] = np.arange(len(known))
    source = table[_keys(original)]
    shares = np.sqrt([number for number, _ in known])
    extra = np.floor((count - len(known)) * shares / shares.sum()).astype(int)
    indices, palettes, used = np.empty(source.shape, np.uint8), list[Pixels](), 0
    for i, more in enumerate(extra):
        here = source == i
        part, palette = _median_cut(colours[here][np.newaxis], 1 + int(more))
        indices[here] = part[0] + used
        palettes.append(palette)
        used += len(palette)
    return indices, np.concatenate(palettes)


def _keys(colours: Pixels) -> NDArray[np.int32]:
    """(H, W, 3) → (H, W): one number for each colour."""
    red, green, blue = (colours[..., i].astype(np.int32) for i in range(3))
    keys: NDArray[np.int32] = red << 16 | green << 8 | blue
    return keys


def _median_cut(colours: Pixels, count: int) -> tuple[Pixels, Pixels]:
    image = Image.fromarray(colours).quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    indices = np.array(image)
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    return indices, palette[: int(indices.max()) + 1]
