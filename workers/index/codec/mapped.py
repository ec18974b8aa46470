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
# How a file of inverted lists begins; one of a whole index, as earlier versions wrote, begins with its class.
_LISTS: Final = b"ilar"


def write_index(codec: Codec, codes: Codes, path: Path) -> None:
    """Write codes (N, code_size) uint8 at positions 0, 1, 2 …: as inverted lists, or as a FAISS index without cells."""
    index, writer = codec.filled(codes), faiss.VectorIOWriter()
    if codec.has_cells:
        faiss.write_InvertedLists(Family(index).inner.invlists, writer)
    else:
        faiss.write_index(index, writer)
    # Written at once by Python: FAISS says nothing when the disk is full at the end, and calls back for each list.
    path.write_bytes(faiss.rev_swig_ptr(writer.data.data(), writer.data.size()).data)


def map_index(codec: Codec, path: Path) -> Any:
    """The index in such a file, read-only. Check the file's digest before: FAISS loads damaged files silently.

    Raises:
        RuntimeError: FAISS cannot open the file.
    """
    if not codec.has_cells:
        return faiss.read_index(str(path), _MAPPED_WHOLE)
    with path.open("rb") as file:
        lists_only = file.read(len(_LISTS)) == _LISTS
    if not lists_only:
        return faiss.read_index(str(path), _MAPPED_CELLS)
    return codec.shells.owning(faiss.read_InvertedLists(faiss.FileIOReader(str(path)), _MAPPED_CELLS))
