"""Which entries of an index are kept when indexes are merged, and where they are afterwards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Positions

__all__ = ["Kept", "Mask"]

# One bool for each position.
Mask = npt.NDArray[np.bool_]


class Kept:
    """Takes a byte for each entry, and eight more for each that is left out.

    Args:
        mask: which entries (N,) are kept, by position.
        first: the position of the first of them afterwards; the others follow in order.
    """

    def __init__(self, mask: Mask, first: int) -> None:
        self.mask = mask
        self._first = first
        self._dropped = np.flatnonzero(~mask)

    def __len__(self) -> int:
        return len(self.mask) - len(self._dropped)

    @property
    def all(self) -> bool:
        return not len(self._dropped)

    def moved(self, positions: Positions) -> Positions:
        """Where the entries at some positions (M,), all of them kept, are afterwards, (M,) int64."""
        return positions - self._dropped.searchsorted(positions) + self._first
