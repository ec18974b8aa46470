"""Index files: written from the entries of others and from codes, and mapped into memory.

Never change a mapped FAISS index: ``add`` aborts the process, ``write_index`` writes a file that cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import faiss

from workers.index.codec.codec import Codec, Codes, append, flat_codes
from workers.index.codec.inverted_lists import LISTS, write_lists
from workers.index.codec.kept import Kept

__all__ = ["map_index", "write_index"]

_MAPPED_CELLS: Final = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
# The flags above load an index without cells into memory, silently.
_MAPPED_WHOLE: Final = faiss.IO_FLAG_MMAP_IFC


def write_index(codec: Codec, parts: Sequence[tuple[Any, Kept]], codes: Codes, path: Path) -> None:
    """Write the entries of some indexes that are kept, and then codes (N, code_size) uint8, at positions 0, 1, 2 …: as
    inverted lists, one after the other, or as a FAISS index without cells, which is made in memory."""
    if codec.has_cells:
        write_lists(codec, parts, codes, path)
        return
    index = codec.filled(codes[:0])
    for part, kept in parts:
        append(index, flat_codes(part)[kept.mask])
    append(index, codes)
    writer = faiss.VectorIOWriter()
    faiss.write_index(index, writer)
    # Written at once by Python: FAISS says nothing when the disk is full at the end.
    path.write_bytes(faiss.rev_swig_ptr(writer.data.data(), writer.data.size()).data)


def map_index(codec: Codec, path: Path) -> Any:
    """The index in such a file, read-only. Check the file's digest before: FAISS loads damaged files silently.

    Raises:
        RuntimeError: FAISS cannot open the file.
    """
    if not codec.has_cells:
        return faiss.read_index(str(path), _MAPPED_WHOLE)
    with path.open("rb") as file:
        lists_only = file.read(len(LISTS)) == LISTS
    if not lists_only:
        return faiss.read_index(str(path), _MAPPED_CELLS)
    return codec.shells.owning(faiss.read_InvertedLists(faiss.FileIOReader(str(path)), _MAPPED_CELLS))
