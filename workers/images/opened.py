"""What a file's reader hands over: samples as stored, and all that is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from workers.images.coding import Coding
from workers.images.metadata import Blocks
from workers.images.model import Samples

__all__ = ["Opened", "upright"]


@dataclass(frozen=True)
class Opened:
    """A picture that is not turned yet; each as :class:`workers.images.model.DecodedImage` has it."""

    samples: Samples
    alpha: Samples | None
    blocks: Blocks
    coding: Coding
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)


def upright(samples: Samples, orientation: int) -> Samples:
    """Rows and columns as they are to be seen (CIPA DC-008, tag 0x0112): 1 to 8; contiguous."""
    turned = samples.swapaxes(0, 1) if orientation >= 5 else samples
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
