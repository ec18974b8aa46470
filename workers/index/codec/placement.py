"""Where a feature lies for a search that should meet one code."""

from __future__ import annotations

import numpy as np

from tasks.results import Placement
from workers.index.codec.codec import Codec, Codes, Features, search

__all__ = ["placed"]


def placed(codec: Codec, code: Codes, feature: Features) -> Placement:
    """The rank of a code's (code_size,) coarse cell, and the code's distance, for one feature (D,) float32."""
    probe = codec.probe(feature, max(codec.cells, 1))
    ((_, distance),) = search(codec.filled(code[None]), probe, 1)
    if probe.cells is None:
        return Placement(cell_rank=None, distance=distance)
    cell = int.from_bytes(code[: codec.cell_size].tobytes(), "little")
    (rank,) = np.flatnonzero(probe.cells[0] == cell)
    return Placement(cell_rank=int(rank) + 1, distance=distance)
