"""The codec: a trained, empty FAISS index that turns features into codes and codes back into features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from tasks.errors import InvalidRequest
from workers.index.codec.coarse import Cells
from workers.index.codec.family import Family, make_index
from workers.index.codec.gpu import on_gpu
from workers.index.codec.probes import Probe, batched, search_cells
from workers.index.codec.shells import Shells
from workers.index.codec.target import Target

Features = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


class Codec:
    """Quantises features exactly as the index does: it *is* the index, without entries. Immutable, thread-safe."""

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
            InvalidRequest: there is no such index, it cannot be used here, or there are too few features to train it.
        """
        features = np.ascontiguousarray(features, dtype=np.float32)
        work = Family(make_index(features.shape[1], factory)).training_work(len(features))
        try:
            index = on_gpu(
                f"Training {factory}", work, lambda gpu: trained_index(factory, features, gpu.flat),
                lambda: trained_index(factory, features),
            )  # fmt: skip
        except RuntimeError as error:
            raise InvalidRequest(
                f"The index {factory!r} cannot be trained on {len(features):,} features: {error}"
            ) from error
        return cls(index, factory)

    @classmethod
    def read(cls, path: Path, factory: str) -> Codec:
        """The codec in a file that :meth:`write` made; check its digest before, FAISS does not."""
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE), factory)

    def write(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))

    @cached_property
    def _cells(self) -> Cells | None:
        return Cells(faiss.downcast_index(self._family.inner.quantizer)) if self._family.has_cells else None

    @cached_property
    def shells(self) -> Shells:
        """Makes indexes over inverted lists that lie elsewhere; only for a codec with cells."""
        return Shells(self._family.inner)

    def warm(self) -> None:
        """Prepare what only searches need, so that the first query does not wait for it."""
        _ = self._cells

    # What follows never changes. It is asked for with each query and each change of a journal, and each question to
    # FAISS lets go of Python's lock, which other threads then have for a while.

    @cached_property
    def dimension(self) -> int:
        return int(self._index.d)

    @cached_property
    def inner_dimension(self) -> int:
        """How many numbers a feature has in the space of the index."""
        return int(self._family.inner.d)

    @cached_property
    def code_size(self) -> int:
        """Bytes of one code, the coarse cell included."""
        return int(self._index.sa_code_size())

    @property
    def keeps_features(self) -> bool:
        """Whether a code is the feature itself, so that an unedited image is at no distance from its code."""
        return isinstance(self._family.inner, faiss.IndexFlat | faiss.IndexIVFFlat)

    @property
    def counts_bits(self) -> bool:
        """Whether distances of codes are Hamming's, not squared L2."""
        return isinstance(self._family.inner, faiss.IndexLSH)

    @property
    def has_cells(self) -> bool:
        return self._family.has_cells

    @property
    def cell_size(self) -> int:
        """How many bytes at the front of a code hold its coarse cell's number; 0 for an index without cells."""
        return self._family.cell_size

    @cached_property
    def cells(self) -> int:
        """How many coarse cells there are; 0 for an index without cells."""
        return int(self._family.inner.nlist) if self._family.has_cells else 0

    def cells_of(self, codes: Codes) -> npt.NDArray[np.unsignedinteger]:
        """The coarse cells (N,) of codes (N, code_size); only for a codec with cells."""
        return self._family.cells_of(codes)

    def encode(self, features: Features) -> Codes:
        """Codes (N, code_size) uint8 of features (N, D) float32."""
        codes: Codes = self._index.sa_encode(np.ascontiguousarray(features, dtype=np.float32))
        return codes

    def decode(self, codes: Codes) -> Features:
        """The reconstructions (N, D) float32 of codes: what a search compares a query with."""
        features: Features = self._index.sa_decode(np.ascontiguousarray(codes, dtype=np.uint8))
        return features

    def transformed(self, features: Features) -> Features:
        """Features (N, D) float32 in the space of the index, (N, T)."""
        moved: Features = self._family.transformed(np.ascontiguousarray(features, dtype=np.float32))
        return moved

    def probes(self, features: Features, nprobe: int) -> list[Probe]:
        """Prepare searches for features (N, D), once for all indexes of this codec."""
        queries = self._family.transformed(np.ascontiguousarray(features, dtype=np.float32))
        rows = [slice(i, i + 1) for i in range(len(queries))]
        if self._cells is None:
            return [Probe(queries[row], None, None) for row in rows]
        distances, cells = self._cells.nearest(queries, nprobe)
        return [Probe(queries[row], cells[row], distances[row]) for row in rows]

    def probe(self, feature: Features, nprobe: int) -> Probe:
        """The same for one feature (D,)."""
        return self.probes(feature[None], nprobe)[0]

    def target(self, codes: Codes) -> Target:
        """Where activation has to move the features that have codes (N, code_size) uint8."""
        return self._family.target(np.ascontiguousarray(codes, dtype=np.uint8))

    def filled(self, codes: Codes) -> Any:
        """A new FAISS index in RAM with these codes at positions 0, 1, 2 …"""
        index = faiss.clone_index(self._index)
        append(index, codes)
        return index


def trained_index(factory: str, features: Features, flat: Callable[[int], Any] | None = None) -> Any:
    """A FAISS index without entries, trained on features (N, D) float32; `flat` as in :meth:`Family.training`.

    Raises:
        InvalidRequest: there is no such index, or it cannot be used here.
        RuntimeError: there are too few features.
    """
    index = make_index(features.shape[1], factory)
    family = Family(index)
    inner = family.inner
    if hasattr(inner, "do_polysemous_training"):
        # It orders centroids for comparisons by Hamming distance, which no search here makes: 13 s of a core.
        inner.do_polysemous_training = False
    with family.training(flat):
        index.train(features)
    return index


def together(codes: Sequence[Codes]) -> Codes:
    """Codes (code_size,) as one array (N, code_size); at least one. What `np.stack` does, which keeps Python's lock
    five times as long."""
    return np.frombuffer(b"".join([code.tobytes() for code in codes]), dtype=np.uint8).reshape(len(codes), -1)


def append(index: Any, codes: Codes) -> None:
    """Add codes (N, code_size) at the next positions of an index in RAM."""
    if not len(codes):
        return
    inner = Family(index).inner  # an index with transforms has no add_sa_codes of its own
    positions = np.arange(index.ntotal, index.ntotal + len(codes), dtype=np.int64)
    inner.add_sa_codes(np.ascontiguousarray(codes, dtype=np.uint8), positions)
    index.ntotal = inner.ntotal


def flat_codes(index: Any) -> Codes:
    """The codes (N, code_size) of an index without cells: a view of its memory, which may be a mapped file."""
    inner = Family(index).inner
    shape = (inner.ntotal, inner.code_size)
    if not inner.ntotal:
        return np.empty(shape, dtype=np.uint8)
    return faiss.rev_swig_ptr(inner.codes.data(), shape[0] * shape[1]).reshape(shape)  # type: ignore[no-any-return]


def search(index: Any, probe: Probe, k: int) -> Sequence[tuple[int, float]]:
    """The `k` nearest entries of an index: ``(position, distance)``, nearest first; squared L2, or Hamming for LSH.

    Search parameters are passed with the call: the index is shared by threads and never changed.
    """
    inner = Family(index).inner
    distances, positions = (
        inner.search(probe.query, k) if probe.cells is None else search_cells(inner, batched([probe]), k)
    )
    return pairs_of(distances[0], positions[0])


def search_many(codec: Codec, index: Any, features: Features, nprobe: int, k: int) -> tuple[Features, Positions]:
    """The same for many features (Q, D) at once: distances and positions (Q, k), a position of −1 where there are
    fewer. The index may lie on a GPU."""
    queries = codec.transformed(features)
    inner = Family(index).inner
    asked = faiss.SearchParametersIVF(nprobe=min(nprobe, codec.cells)) if codec.has_cells else None
    distances, positions = inner.search(queries, k, params=asked)
    return np.maximum(distances, 0).astype(np.float32), positions  # a GPU may round below it


def search_among(codec: Codec, index: Any, probe: Probe, k: int, positions: Positions) -> Sequence[tuple[int, float]]:
    """As :func:`search`, among the entries at some positions (M,) int64 only."""
    inner = Family(index).inner
    if not len(positions):
        return []
    if probe.cells is None:  # FAISS takes a selection only for indexes with cells
        selected = codec.filled(flat_codes(index)[positions])
        return [(int(positions[p]), d) for p, d in search(selected, probe, k)]
    chosen = np.zeros(int(positions.max()) + 1, dtype=bool)
    chosen[positions] = True
    bits = np.packbits(chosen, bitorder="little")
    distances, found = search_cells(inner, batched([probe]), k, faiss.IDSelectorBitmap(bits))
    return pairs_of(distances[0], found[0])


def pairs_of(distances: Features, positions: Positions) -> Sequence[tuple[int, float]]:
    """What was found for one query, (k,) each; the position is −1 where nothing was found."""
    return [(p, d) for p, d in zip(positions.tolist(), distances.tolist(), strict=True) if p >= 0]
