"""Why copies are missed: how often one leaves its coarse cell, and how far features lie from the code they should meet.

The authors' notebook shows both for passive and activated images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from workers.evaluation.searching import FirstMatches
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.verdicts.calibration import wilson

__all__ = ["CellRow", "Distances", "cells_left", "distances_of", "has_distances"]

_UNEDITED: Final = "identity"


@dataclass(frozen=True)
class CellRow:
    """How many copies by one edit have another nearest cell than the code that is registered; Wilson's interval."""

    index: str
    activated: bool
    edit: str
    copies: int
    left: float
    low: float
    high: float


@dataclass(frozen=True)
class Distances:
    """Distances ‖x − q(x)‖ (M,) of features x from codes q(x), not squared.

    Attributes:
        what: `unedited` and `edited` images from the code of their asset, `unrelated` ones from the nearest entry that
            a search at nprobe 1 finds.
    """

    what: str
    activated: bool
    values: Features


def cells_left(
    index: str, codec: Codec, registered: Codes, copies: Mapping[str, Features], *, activated: bool
) -> Iterator[CellRow]:
    """Count the copies (N, D) of each edit that leave the cells of N codes; nothing for an index without cells."""
    if not codec.cell_size:
        return
    own = registered[:, : codec.cell_size]
    for edit, features in copies.items():
        cells = codec.encode(np.asarray(features))[:, : codec.cell_size]
        left = int((cells != own).any(axis=1).sum())
        yield CellRow(index, activated, edit, len(own), left / len(own), *wilson(left, len(own)))


def has_distances(factory: str) -> bool:
    """Whether searches compare by squared L2: those of LSH count bits."""
    return "LSH" not in factory


def distances_of(
    codec: Codec, registered: Codes, copies: Mapping[str, Features], unrelated: FirstMatches, *, activated: bool
) -> Iterator[Distances]:
    """Of the unedited images, of all edited copies together, and of the first matches of unrelated images."""
    codes = codec.decode(registered)
    by_edit = {edit: np.linalg.norm(np.asarray(features) - codes, axis=1) for edit, features in copies.items()}
    yield Distances("unedited", activated, by_edit.pop(_UNEDITED))
    yield Distances("edited", activated, np.concatenate(list(by_edit.values())))
    found = unrelated.distances[np.isfinite(unrelated.distances)]
    yield Distances("unrelated", activated, np.sqrt(np.maximum(found, 0)))
