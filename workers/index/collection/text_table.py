"""Text tables: position in a segment → text (an asset_id, or metadata), mapped from a file instead of held in memory.

Layout: ``AIITEXTS`` | count (uint64) | count + 1 offsets (uint64, little endian) | the texts in UTF-8.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.errors import CorruptSegment

_MAGIC = b"AIITEXTS"
_HEADER = 16
# Texts, and bytes, that are taken at a time. Python's lock is kept while some are counted, joined or searched: for half
# a millisecond at most.
_CHUNK = 8_192
_SEARCHED = 65_536

# The bytes of some texts, one behind the other, and how many each has.
_Chunk = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]


def write_table(path: Path, texts: Iterable[str]) -> int:
    """Write one text for each position, in order, without holding them in memory; returns how many there were."""
    return merge_tables(path, (), texts)


def merge_tables(path: Path, tables: Sequence[tuple[TextTable, npt.NDArray[np.bool_]]], more: Iterable[str]) -> int:
    """Write the texts of some tables that are kept (one bool for each position), and then `more`; returns how many
    there were.

    Neither memory nor what is done at once, while Python's lock is held, grows with the texts: queries are answered
    meanwhile.
    """
    texts, sizes = (path.with_name(path.name + end) for end in (".texts", ".sizes"))
    parts = [*(table.chunks(kept) for table, kept in tables), _chunks(more)]
    try:
        with texts.open("wb") as of_texts, sizes.open("wb") as of_sizes:
            for chunk, lengths in chain.from_iterable(parts):
                of_texts.write(chunk.data)
                of_sizes.write(lengths.astype("<u8").data)
        _join(path, texts, sizes)
        return sizes.stat().st_size // 8
    finally:
        for part in (texts, sizes):
            part.unlink(missing_ok=True)


def _chunks(texts: Iterable[str]) -> Iterator[_Chunk]:
    """Some texts at a time."""
    left = iter(texts)
    while some := [text.encode() for text in islice(left, _CHUNK)]:
        yield np.frombuffer(b"".join(some), dtype=np.uint8), np.fromiter(map(len, some), dtype=np.uint64)


def _join(path: Path, texts: Path, sizes: Path) -> None:
    end = 0
    with path.open("wb") as file, texts.open("rb") as of_texts, sizes.open("rb") as of_sizes:
        file.write(_MAGIC + np.array([sizes.stat().st_size // 8, 0], dtype="<u8").tobytes())
        while chunk := of_sizes.read(8 * _CHUNK):
            offsets = end + np.cumsum(np.frombuffer(chunk, dtype="<u8"), dtype="<u8")
            file.write(offsets.data)
            end = int(offsets[-1])
        shutil.copyfileobj(of_texts, file, 1 << 20)


class TextTable:
    """A mapped table; read-only and thread-safe.

    Raises:
        CorruptSegment: the file is not such a table, or not complete.
    """

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < _HEADER:
            raise CorruptSegment(f"{path.name} is too short for a table.")
        data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # slices of a memmap itself take ten times as long
        if data[:8].tobytes() != _MAGIC:
            raise CorruptSegment(f"{path.name} is not a table.")
        count = int(data[8:_HEADER].view("<u8")[0])
        texts = _HEADER + 8 * (count + 1)
        self._offsets = data[_HEADER:texts].view("<u8")
        self._texts = data[texts:]
        if len(self._offsets) != count + 1 or len(self._texts) != int(self._offsets[-1]):
            raise CorruptSegment(f"{path.name} is shorter or longer than its header says.")
        # For one text, arrays take three times as long. Memory views need offsets at a multiple of eight bytes.
        self._ends, self._bytes = self._offsets.data, self._texts.data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> str:
        return str(self._bytes[self._ends[position] : self._ends[position + 1]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        return self.beginning_at(0)

    def beginning_at(self, position: int) -> Iterator[str]:
        """The texts from a position on."""
        for start in range(position, len(self), _CHUNK):
            offsets: npt.NDArray[np.uint64] = np.array(self._offsets[start : start + _CHUNK + 1])
            chunk = bytes(self._texts[int(offsets[0]) : int(offsets[-1])])
            cuts = (offsets - offsets[0]).tolist()
            for begin, end in pairwise(cuts):
                yield chunk[begin:end].decode()

    def chunks(self, kept: npt.NDArray[np.bool_]) -> Iterator[_Chunk]:
        """The texts that are kept, many at a time."""
        for start in range(0, len(self), _CHUNK):
            offsets: npt.NDArray[np.uint64] = np.array(self._offsets[start : start + _CHUNK + 1])
            chosen, lengths = kept[start : start + _CHUNK], np.diff(offsets)
            texts = np.array(self._texts[int(offsets[0]) : int(offsets[-1])])
            yield (
                (texts, lengths)
                if chosen.all()
                else (texts[np.repeat(chosen, lengths.astype(np.int64))], lengths[chosen])
            )

    def containing(self, part: str) -> npt.NDArray[np.int64]:
        """The positions (M,) int64 of the texts that contain `part`, ascending."""
        inside = np.fromiter(_starts(part.encode(), self._texts), dtype=np.uint64)
        return np.unique(np.searchsorted(self._offsets, inside, side="right") - 1).astype(np.int64)

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and any(self[position] == text for position in self.containing(text).tolist())


def _starts(part: bytes, texts: Any) -> Iterator[int]:
    """Where a part occurs in mapped texts, overlapping itself too: at the end of one text, and at the beginning of the
    next one. Piece by piece, since Python's lock is kept while one is searched."""
    pattern = re.compile(re.escape(part))
    for first in range(0, len(texts), _SEARCHED):
        end = first + _SEARCHED + len(part) - 1
        found = pattern.search(texts, first, end)
        while found:
            yield found.start()
            found = pattern.search(texts, found.start() + 1, end)
