"""A segment: an immutable part of a collection, mapped from two files. Never call a mutator on a mapped FAISS index:
``add`` aborts the process, ``write_index`` writes a file that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import faiss

from tasks.errors import CorruptSegment
from workers.index.assets import AssetTable, write_assets
from workers.index.codec import Codec, Codes, Features, search


def write_segment(codec: Codec, codes: Codes, asset_ids: Sequence[str], index_path: Path, assets_path: Path) -> None:
    """Write codes (N, code_size) and the N identifiers they belong to, and make both files durable."""
    if len(codes) != len(asset_ids):
        raise ValueError(f"{len(codes)} codes for {len(asset_ids)} assets")
    faiss.write_index(codec.filled(codes), str(index_path))
    write_assets(assets_path, asset_ids)
    for path in (index_path, assets_path):
        _flush(path)


def _flush(path: Path) -> None:
    """FAISS never syncs what it writes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


class Segment:
    """Search one mapped segment. Thread-safe. Check the files' digests before: FAISS loads damaged files silently."""

    def __init__(self, index_path: Path, assets_path: Path) -> None:
        self._index = faiss.read_index(str(index_path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        self._assets = AssetTable(assets_path)
        if len(self._assets) != self._index.ntotal:
            raise CorruptSegment(
                f"{index_path.name} holds {self._index.ntotal} codes, {assets_path.name} {len(self._assets)} assets."
            )

    def __len__(self) -> int:
        return len(self._assets)

    def search(self, feature: Features, k: int, nprobe: int) -> list[tuple[str, float]]:
        """``(asset_id, squared L2 distance)`` of the nearest, for one feature (D,)."""
        return [(self._assets[p], d) for p, d in search(self._index, feature, k, nprobe)]
