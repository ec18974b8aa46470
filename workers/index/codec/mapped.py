"""Index files: written with their codes, and mapped into memory.

Never change a mapped FAISS index: ``add`` aborts the process, ``write_index`` writes a file that cannot be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import faiss

from workers.index.codec.codec import Codec, Codes
from workers.index.codec.family import Family

__all__ = ["map_index", "write_index"]

_MAPPED_CELLS: Final = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
# The flags above load an index without cells into memory, silently.
_MAPPED_WHOLE: Final = faiss.IO_FLAG_MMAP_IFC
# A table of distances between centroids and sub-centroids saves a third of a search; past this it would cost more
# memory than the codes.
_MOST_TABLE_BYTES: Final = 64 << 20


def write_index(codec: Codec, codes: Codes, path: Path) -> None:
    """Write a FAISS index with codes (N, code_size) uint8 at positions 0, 1, 2 …"""
    faiss.write_index(codec.filled(codes), str(path))


def map_index(codec: Codec, path: Path) -> Any:
    """The index in such a file, read-only. Check the file's digest before: FAISS loads damaged files silently.

    Raises:
        RuntimeError: FAISS cannot open the file.
    """
    index = faiss.read_index(str(path), _MAPPED_CELLS if codec.has_cells else _MAPPED_WHOLE)
    inner = Family(index).inner
    if isinstance(inner, faiss.IndexIVFPQ) and inner.nlist * inner.pq.M * inner.pq.ksub * 4 <= _MOST_TABLE_BYTES:
        inner.precompute_table()
    return index
