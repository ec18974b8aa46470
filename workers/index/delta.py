"""The delta: in RAM, what the journal says since the newest segment.

Positions are only ever appended; an asset that is added again, or removed, leaves a dead position behind, which a
search skips. That works alike for every index family, whereas deleting shifts positions in most of them.
"""

from __future__ import annotations

from collections.abc import Collection as AnyCollection

import numpy as np

from workers.index.codec import Codec, Codes, Features, append, search


class Delta:
    """Not thread-safe: the collection that owns it holds a lock."""

    def __init__(self, codec: Codec) -> None:
        self._index = codec.filled(np.empty((0, codec.code_size), dtype=np.uint8))
        self._asset_at: list[str] = []
        self._position_of: dict[str, int] = {}
        self._removed: set[str] = set()

    def __len__(self) -> int:
        return len(self._position_of)

    def add(self, asset_id: str, code: Codes) -> None:
        """Register one code (code_size,), in place of an earlier one of the same asset."""
        append(self._index, code[None])
        self._position_of[asset_id] = len(self._asset_at)
        self._asset_at.append(asset_id)
        self._removed.discard(asset_id)

    def remove(self, asset_id: str) -> None:
        self._position_of.pop(asset_id, None)
        self._removed.add(asset_id)

    @property
    def masked(self) -> AnyCollection[str]:
        """Assets about which segments must be silent, because the delta knows better; supports ``in`` and ``len``."""
        return self._position_of.keys() | self._removed if self._removed else self._position_of.keys()

    def search(self, feature: Features, k: int, nprobe: int) -> list[tuple[str, float]]:
        """``(asset_id, squared L2 distance)`` of the nearest live entries, for one feature (D,)."""
        dead = len(self._asset_at) - len(self._position_of)
        hits = search(self._index, feature, min(k + dead, max(len(self._asset_at), 1)), nprobe)
        return [(self._asset_at[p], d) for p, d in hits if self._position_of.get(self._asset_at[p]) == p][:k]
