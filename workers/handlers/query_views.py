"""Versions of a query that are searched beside the image itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tasks.messages import View

__all__ = ["AS_IS", "views_of"]

AS_IS = "as_is"


def views_of(image: torch.Tensor, wanted: Sequence[View]) -> dict[str, torch.Tensor]:
    """By name, a square image (3, S, S) as it is and as the wanted views show it.

    They are made of the extractor's input: mirroring and quarter turns lose nothing there.
    """
    flips = [("", image)]
    if "mirror" in wanted:
        flips.append(("mirror", image.flip(2)))
    views: dict[str, torch.Tensor] = {}
    for name, flipped in flips:
        views[name or AS_IS] = flipped
        for turns in (1, 2, 3) if "rotations" in wanted else ():
            turned = f"rotation_{90 * turns}"
            views[f"{name}_{turned}" if name else turned] = flipped.rot90(turns, (1, 2)).contiguous()
    return views
