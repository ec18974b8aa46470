"""Bytes to pixels and back, with limits: nothing the caller sends may crash, stall or bloat a worker.

``decode`` gives upright sRGB pixels with alpha set aside; ``encode`` writes them again in the source's format. Both are
safe to call from many threads at once: they touch no module-level state of ours or of Pillow's.
"""

from __future__ import annotations

from workers.images.decode import decode, pixels_of
from workers.images.encode import encode
from workers.images.model import DecodedImage, EncodedImage, Limits

__all__ = ["DecodedImage", "EncodedImage", "Limits", "decode", "encode", "pixels_of"]
