"""Codes of the codecs that a collection had before, as codes of its current one.

When a collection is trained again, its journal and its result documents still hold codes of the former codec, jobs in
flight add more of them, and a rollback makes that codec current again. Each code but those of the first codec names the
codec it is of; it is decoded by that, and what comes out is encoded anew. An activated image lies near to what its code
decodes to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from workers.index.codec.codec import Codec, Codes
from workers.index.collection.files import CollectionStore
from workers.index.collection.manifest import Manifest

__all__ = ["Translation", "UnknownCodec"]


class UnknownCodec(Exception):
    """A code is of a codec that this process has not heard of: a newer generation has it."""


class Translation:
    """Reads codes for one generation. Thread-safe.

    Args:
        codec: the manifest's.
        is_newest: whether the manifest is the current one still; asked only where a codec is not known.
    """

    def __init__(
        self, files: CollectionStore, manifest: Manifest, codec: Codec, is_newest: Callable[[], bool] = lambda: True
    ) -> None:
        self._codec, self._is_newest = codec, is_newest
        self._tag = manifest.tag_of(manifest.codec)
        self._open: dict[str, Codec] = {}
        self._openers: dict[str, Callable[[], Codec]] = {
            manifest.tag_of(known.digest): partial(_opened, files, known.digest, known.factory)
            for known in manifest.codecs
        }

    def read(self, code: Codes, tag: str) -> Codes:
        """A code (code_size,) of the current codec, for one of the codec that the tag names.

        Raises:
            ValueError: it is no code of that codec, or there is no such codec.
            UnknownCodec: there is none in this generation.
        """
        codec = self._codec_of(tag)
        if len(code) != codec.code_size:
            raise ValueError(f"a code of {len(code)} instead of {codec.code_size} bytes")
        if codec.has_cells and (cell := int(codec.cells_of(code[None])[0])) >= codec.cells:  # FAISS may crash over it
            raise ValueError(f"a code of the cell {cell}, and there are {codec.cells}")
        if codec is self._codec:
            return code
        (translated,) = self._codec.encode(codec.decode(code[None]))
        return translated  # type: ignore[no-any-return]

    def fits(self, code: Codes, tag: str) -> bool:
        """Whether a code has the length of those of the codec that the tag names."""
        return len(code) == self._codec_of(tag).code_size

    def _codec_of(self, tag: str) -> Codec:
        if tag == self._tag:
            return self._codec
        if tag not in self._openers:
            if not self._is_newest():
                raise UnknownCodec(tag)
            raise ValueError(f"a code of the unknown codec {tag[:40]!r}")
        if tag not in self._open:
            self._open[tag] = self._openers[tag]()
        return self._open[tag]


def _opened(files: CollectionStore, digest: str, factory: str) -> Codec:
    return Codec.read(files.fetch(digest), factory)
