"""The asset table: position in a segment → ``asset_id``, mapped from a file, so that it costs no memory.

Layout: ``AIIASSET`` | count (uint64) | count + 1 offsets (uint64, little endian) | the identifiers in UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.errors import CorruptSegment

_MAGIC = b"AIIASSET"
_HEADER = 16


def write_assets(path: Path, asset_ids: Sequence[str]) -> None:
    """Write the table of a segment, in the order of its positions."""
    encoded = [asset_id.encode() for asset_id in asset_ids]
    offsets = np.zeros(len(encoded) + 1, dtype="<u8")
    np.cumsum([len(name) for name in encoded], out=offsets[1:])
    with path.open("wb") as file:
        file.write(_MAGIC + np.uint64(len(encoded)).astype("<u8").tobytes())
        file.write(offsets.tobytes())
        file.write(b"".join(encoded))


class AssetTable:
    """A mapped table; read-only and thread-safe."""

    def __init__(self, path: Path) -> None:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        if data[:8].tobytes() != _MAGIC:
            raise CorruptSegment(f"{path.name} is not an asset table.")
        count = int(data[8:_HEADER].view("<u8")[0])
        names = _HEADER + 8 * (count + 1)
        self._offsets = data[_HEADER:names].view("<u8")
        self._names = data[names:]
        if len(self._offsets) != count + 1 or len(self._names) != int(self._offsets[-1]):
            raise CorruptSegment(f"{path.name} is shorter or longer than it says.")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> str:
        return bytes(self._names[int(self._offsets[position]) : int(self._offsets[position + 1])]).decode()
