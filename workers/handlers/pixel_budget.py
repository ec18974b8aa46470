"""A bound on the pixels in flight, so that many large images at once wait instead of exhausting memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# What a worker takes without images, and what an activation holds for each of its pixels, at most. Measured at 12
# megapixels: grey 21, 8-bit RGB 28, with a profile 35, CMYK 31; 16-bit RGB 55, with alpha 58.
_WORKER_BYTES: Final = 1 << 30
_PIXEL_BYTES: Final = 60


def within_memory(pixels: int, memory: int) -> int:
    """So many pixels, or what fits into a worker's memory in bytes where that is less."""
    return max(1, min(pixels, (memory - _WORKER_BYTES) // _PIXEL_BYTES))


class PixelBudget:
    """Admits images while they fit; an image larger than the whole budget is admitted alone. Thread-safe.

    Args:
        pixels: most pixels at a time. An activation holds about 60 bytes for each of its pixels.
    """

    def __init__(self, pixels: int) -> None:
        self._free = self._all = pixels
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until `pixels` fit, and take them for the time of the block."""
        share = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()
