"""Pixels to a PNG, by libpng. Pillow's own encoder takes three times as long, and knows no colours of 16 bits."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from PIL import Image

from workers.images.model import Samples
from workers.images.palette import reduced
from workers.images.strips import strips

__all__ = ["write_palette", "write_png"]

# Measured on 12 megapixels, one core, with Pillow beside it (level 1, default strategy):
#   photograph with sensor noise: 0.34 s, 18.0 MB; 1.06 s, 19.6 MB    page of text: 0.08 s, 0.85 MB; 0.19 s, 0.84 MB
# Level 4 is worth a twentieth of the bytes, for more than twice the time.
_LEVEL: Final = 1
# Noise is coded best symbol by symbol, in half the time; text needs matches of more than runs. A few bands tell which.
_BANDS: Final = 8
_BAND_ROWS: Final = 16
_PALETTE_LEVEL: Final = 4
_FAR: Final = 32  # levels; median cut forgets rare colours, as of a small logo


def write_png(colours: Samples, alpha: Samples | None) -> bytes:
    """Grey (H, W) or RGB (H, W, 3) of 8 or 16 bits, with alpha (H, W) of the same depth or None."""
    from imagecodecs import PNG  # noqa: PLC0415 - a tenth of a second, which reading alone does not need

    samples = np.ascontiguousarray(colours if alpha is None else np.dstack([colours, alpha]))
    tops = range(0, len(samples), max(_BAND_ROWS, len(samples) // _BANDS))
    sample = np.concatenate([samples[top : top + _BAND_ROWS] for top in tops])
    strategies = (PNG.STRATEGY.RLE, PNG.STRATEGY.DEFAULT)
    return _encoded(samples, min(strategies, key=lambda strategy: len(_encoded(sample, strategy))))


def _encoded(samples: Samples, strategy: int) -> bytes:
    from imagecodecs import PNG, png_encode  # noqa: PLC0415 - as above

    return bytes(png_encode(samples, level=_LEVEL, strategy=strategy, filter=PNG.FILTER.PAETH))


def write_palette(colours: Samples, alpha: Samples | None, count: int, original: Samples) -> bytes | None:
    """A PNG of a palette, without dithering, whose noise would show; None where a pixel would be visibly off.

    Args:
        colours: RGB (H, W, 3) of 8 bits.
        alpha: 0 or 255, and exact in the file; None for opaque pictures.
        count: most colours of the palette.
        original: the picture in the few colours that it came in, of the same shape.
    """
    clear = None if alpha is None or alpha.all() else alpha == 0
    indices, palette = reduced(colours, original, count - (clear is not None))
    if any((np.abs(palette[indices[r]].astype(np.int16) - colours[r]) > _FAR).any() for r in strips(*indices.shape)):
        return None
    options: dict[str, Any] = {}
    if clear is not None:
        options["transparency"] = len(palette)
        indices[clear] = len(palette)
        palette = np.concatenate([palette, colours[clear][:1]])
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_PALETTE_LEVEL, **options)
    return file.getvalue()
