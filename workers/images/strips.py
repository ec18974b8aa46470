"""Large images are worked on strip by strip, so that what one operation writes is still in the processor's cache when
the next one reads it. A module of its own, because decoding does without torch: see :mod:`workers.images.trial`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["strips"]

_STRIP_PIXELS: Final = 1 << 16
_FEWEST_ROWS: Final = 8  # some that read rows above and below read them for each strip


def strips(height: int, width: int) -> Iterator[slice]:
    """Consecutive runs of rows, of some 65,000 pixels each."""
    step = max(_FEWEST_ROWS, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
