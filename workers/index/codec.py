"""The codec: a trained, empty FAISS index that turns features into codes and codes back into features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from tasks.errors import InvalidRequest
from workers.index.aim import Aim
from workers.index.family import Family

Features = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


class Codec:
    """Quantises features exactly as the index does, because it *is* the index, without entries. Immutable,
    thread-safe."""

    def __init__(self, index: Any, factory: str) -> None:
        if not index.is_trained or index.ntotal:
            raise ValueError("A codec is made from a trained index without entries.")
        self._index = index
        self._family = Family(index)
        self.factory = factory

    @classmethod
    def train(cls, factory: str, features: Features) -> Codec:
        """Train on features (N, D) float32 with a FAISS factory string such as ``IVF512,PQ8x8``.

        Raises:
            InvalidRequest: FAISS cannot build or train that index on so few features; the message is FAISS' own.
        """
        try:
            index = faiss.index_factory(features.shape[1], factory)
            index.train(np.ascontiguousarray(features, dtype=np.float32))
        except RuntimeError as error:
            raise InvalidRequest(
                f"The index {factory!r} cannot be trained on {len(features):,} features: {error}"
            ) from error
        return cls(index, factory)

    @classmethod
    def read(cls, path: Path, factory: str) -> Codec:
        return cls(faiss.read_index(str(path)), factory)

    def write(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def code_size(self) -> int:
        """Bytes of one code, the coarse cell included."""
        return int(self._index.sa_code_size())

    @property
    def cell_size(self) -> int:
        """How many bytes at the front of a code name its coarse cell; 0 for an index without cells."""
        return self._family.cell_size

    def encode(self, features: Features) -> Codes:
        """Codes (N, code_size) uint8 of features (N, D) float32."""
        codes: Codes = self._index.sa_encode(np.ascontiguousarray(features, dtype=np.float32))
        return codes

    def decode(self, codes: Codes) -> Features:
        """The features (N, D) float32 that codes stand for: what a search compares a query with."""
        features: Features = self._index.sa_decode(np.ascontiguousarray(codes, dtype=np.uint8))
        return features

    def aim(self, codes: Codes) -> Aim:
        """Where activation has to move the features of codes (N, code_size) uint8."""
        return self._family.aim(np.ascontiguousarray(codes, dtype=np.uint8))

    def filled(self, codes: Codes) -> Any:
        """A new FAISS index in RAM with these codes at positions 0, 1, 2 …"""
        index = faiss.clone_index(self._index)
        append(index, codes)
        return index


def append(index: Any, codes: Codes) -> None:
    """Add codes (N, code_size) at the next positions of an index in RAM."""
    if not len(codes):
        return
    inner = Family(index).inner  # an index behind transforms has no add_sa_codes of its own
    positions = np.arange(index.ntotal, index.ntotal + len(codes), dtype=np.int64)
    inner.add_sa_codes(np.ascontiguousarray(codes, dtype=np.uint8), positions)
    index.ntotal = inner.ntotal


def search(index: Any, feature: Features, k: int, nprobe: int) -> Sequence[tuple[int, float]]:
    """The `k` nearest positions to one feature (D,): ``(position, squared L2 distance)``, nearest first.

    `nprobe` travels with the call; the index, shared by threads, is never changed.
    """
    parameters = Family(index).search_parameters(nprobe)
    distances, positions = index.search(feature[None].astype(np.float32), k, params=parameters)
    return [(int(p), float(d)) for p, d in zip(positions[0], distances[0], strict=True) if p >= 0]
