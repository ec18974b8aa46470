"""Samples of 16 bits, which Pillow reads with eight."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.images.model import Samples

__all__ = ["Deep", "divided", "read_png"]


class Deep(NamedTuple):
    """uint16: ``colours`` (H, W) or (H, W, 3), ``alpha`` (H, W) or None."""

    colours: Samples
    alpha: Samples | None

    def straight(self) -> Deep:
        """Of colours that were multiplied with alpha, those before that; where nothing is seen of them, as they are."""
        if self.alpha is None:
            return self
        alpha = self.alpha if self.colours.ndim == 2 else self.alpha[..., np.newaxis]
        divisor = np.maximum(alpha, 1).astype(np.uint32)
        whole = (self.colours.astype(np.uint32) * 65_535 + divisor // 2) // divisor
        colours = np.where(alpha > 0, np.minimum(whole, 65_535), self.colours).astype(np.uint16)
        return self._replace(colours=colours)


def read_png(picture: bytes) -> Deep:
    """The samples of a PNG of 16 bits; a transparent colour becomes an alpha channel.

    Raises:
        imagecodecs.PngError: the pixel data are damaged.
    """
    from imagecodecs import png_decode  # noqa: PLC0415 - many libraries, for a format that is rare

    samples = png_decode(picture)
    return divided(samples.reshape(*samples.shape[:2], -1))


def divided(samples: NDArray[np.uint16]) -> Deep:
    """(H, W, C) into colours and alpha: C is 1 or 3, and one more with alpha."""
    count = samples.shape[2]
    colours = samples[..., :3] if count >= 3 else samples[..., 0]
    alpha = samples[..., -1] if count in (2, 4) else None
    return Deep(np.ascontiguousarray(colours), None if alpha is None else np.ascontiguousarray(alpha))
