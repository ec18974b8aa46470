"""Versions of a query that are searched beside the image itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from tasks.messages import View
from workers.index.collection.answers import Answer

__all__ = ["AS_IS", "among_views", "best_of", "views_of"]

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
    best = among_views(answers[view], len(answers))
    return view, replace(best, evidence=replace(best.evidence, unsearched=unsearched))


def among_views(answer: Answer, count: int) -> Answer:
    """The same where it is of one of several views: any of them could have given an unrelated image such a match."""
    evidence = replace(answer.evidence, views=count)
    scored = [match.score for match in answer.matches if match.score is not None]  # all, or none
    probable = evidence.probabilities(scored) if scored else [None] * len(answer.matches)
    pairs = zip(answer.matches, probable, strict=True)
    matches = [match.model_copy(update={"probability": probability}) for match, probability in pairs]
    return replace(answer, matches=matches, evidence=evidence)
