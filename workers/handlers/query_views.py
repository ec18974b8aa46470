"""Versions of a query that are searched beside the image itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from tasks.messages import View
from workers.index.collection.answers import Answer

__all__ = ["AS_IS", "best_of", "views_of"]

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


def best_of(answers: Mapping[str, Answer]) -> tuple[str, Answer]:
    """The view with the best first match, and its answer. What was not searched for a view counts for that too: there
    may be a better match."""
    view = min(answers, key=lambda name: answers[name].evidence.rank)
    unsearched = max(answer.evidence.unsearched for answer in answers.values())
    return view, replace(answers[view], evidence=replace(answers[view].evidence, unsearched=unsearched))
