"""What kind of FAISS index a codec is, and the parts of it that encoding, search and activation need.

The families: `Flat`, `PQ…`, `LSH`, `IVF…,…`, and each of these after linear transforms (`OPQ…`, `PCA…`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
from faiss.class_wrappers import RememberSwigOwnership

from tasks.errors import InvalidRequest
from workers.index.codec.target import Array, Target

# FAISS has more of them, whose codes are packed in blocks, need more than the code, or cannot be made one by one: used
# here, some end the process.
_KNOWN: Final = (
    faiss.IndexFlat, faiss.IndexFlatL2, faiss.IndexFlatIP, faiss.IndexPQ, faiss.IndexLSH, faiss.IndexScalarQuantizer,
    faiss.IndexResidualQuantizer, faiss.IndexProductResidualQuantizer, faiss.IndexIVFFlat, faiss.IndexIVFPQ,
    faiss.IndexIVFScalarQuantizer, faiss.IndexIVFResidualQuantizer, faiss.IndexIVFProductResidualQuantizer,
)  # fmt: skip
# Cells further away than these are never nearest to a feature that is near its own cell.
_NEIGHBOUR_CELLS: Final = 256
_POINTS: Final = 256  # for each centroid, at most, k-means of FAISS takes


def make_index(dimension: int, factory: str) -> Any:
    """An untrained index for features of `dimension` values, by FAISS' factory string.

    Raises:
        InvalidRequest: FAISS makes no such index, or it is of a family that cannot be used here.
    """
    try:
        index = faiss.index_factory(dimension, factory)
    except RuntimeError as error:
        raise InvalidRequest(f"There is no index {factory!r} of {dimension}-d features: {error}") from error
    if type(Family(index).inner) not in _KNOWN:
        raise InvalidRequest(
            f"The index {factory!r} cannot be used: it is none of Flat, PQ, LSH, SQ, RQ and PRQ, alone or within IVF, "
            "after a linear transform or none. Without packed codes (fs), for instance, it can."
        )
    return index


@dataclass(frozen=True)
class Family:
    """The parts of a FAISS index. Immutable, thread-safe.

    Attributes:
        index: the whole index.
    """

    index: Any

    @cached_property
    def inner(self) -> Any:
        """The index after the transforms: the one that holds the codes."""
        return faiss.downcast_index(self.index.index) if self._transformed else self.index

    @property
    def _transformed(self) -> bool:
        return isinstance(self.index, faiss.IndexPreTransform)

    @property
    def has_cells(self) -> bool:
        return isinstance(self.inner, faiss.IndexIVF)

    @cached_property
    def cell_size(self) -> int:
        """Bytes at the front of a code that hold its coarse cell's number; 0 for an index without cells."""
        return int(self.inner.coarse_code_size()) if self.has_cells else 0

    def cells_of(self, codes: Any) -> npt.NDArray[np.unsignedinteger]:
        """The coarse cells (N,) of codes (N, code_size), as small a number as can hold them."""
        width = next(width for width in (1, 2, 4, 8) if width >= self.cell_size)
        numbers = np.zeros((len(codes), width), dtype=np.uint8)
        numbers[:, : self.cell_size] = codes[:, : self.cell_size]
        cells: npt.NDArray[np.unsignedinteger] = numbers.view(f"<u{width}")[:, 0]
        return cells

    @property
    def transforms(self) -> list[Any]:
        """The linear transforms that are applied before the inner index."""
        return [self.index.chain.at(i) for i in range(self.index.chain.size())] if self._transformed else []

    @property
    def _rotations(self) -> list[Any]:
        """Those of the transforms that train a product quantiser."""
        return [t for t in map(faiss.downcast_VectorTransform, self.transforms) if isinstance(t, faiss.OPQMatrix)]

    @contextmanager
    def training(self, flat: Callable[[int], Any] | None = None) -> Iterator[None]:
        """While the index trains. For few features, FAISS would write a warning for each part of a rotation's code and
        each of fifty iterations.

        Args:
            flat: makes an empty index, of a dimension, in which k-means finds the nearest centroids; FAISS' own are in
                RAM.
        """
        rotations = self._rotations
        quantisers = [faiss.ProductQuantizer(rotation.d_out, rotation.M, 8) for rotation in rotations]  # as without
        for rotation, quantiser in zip(rotations, quantisers, strict=True):
            quantiser.cp.min_points_per_centroid = 1
            _lend(rotation, "pq", quantiser)
        try:
            with self._assigned_by(flat, quantisers) if flat else nullcontext():
                yield
        finally:
            for rotation in rotations:
                rotation.pq = None

    @contextmanager
    def _assigned_by(self, flat: Callable[[int], Any], rotating: list[Any]) -> Iterator[None]:
        """FAISS keeps pointers only: the indexes live here, and nothing points to them in the end."""
        quantisers = [*rotating, *([self.inner.pq] if self._has_parts else [])]
        assigning = [flat(quantiser.dsub) for quantiser in quantisers]
        clustering = flat(self.inner.d) if self.has_cells else None
        try:
            for quantiser, index in zip(quantisers, assigning, strict=True):
                _lend(quantiser, "assign_index", index)
            if clustering is not None:
                _lend(self.inner, "clustering_index", clustering)
            yield
        finally:
            for quantiser in quantisers:
                quantiser.assign_index = None
            if clustering is not None:
                self.inner.clustering_index = None

    @property
    def _has_parts(self) -> bool:
        return isinstance(self.inner, faiss.IndexPQ | faiss.IndexIVFPQ)

    def training_work(self, count: int) -> float:
        """About how many multiplications k-means takes for so many features."""
        inner, kinds = self.inner, []  # centroids, dimensions and iterations of each
        if self.has_cells:
            kinds.append((inner.nlist, inner.d, inner.cp.niter))
        if self._has_parts:
            kinds.append((inner.pq.ksub, inner.d, inner.pq.cp.niter))
        for rotation in self._rotations:
            kinds.append((256, rotation.d_out, rotation.niter_pq_0 + rotation.niter * rotation.niter_pq))
        return float(sum(k * min(count, k * _POINTS) * d * iterations for k, d, iterations in kinds))

    def transformed(self, features: Array) -> Array:
        """Features (N, D) in the space of the inner index, (N, T)."""
        for transform in self.transforms:
            features = transform.apply(features)
        return features

    def target(self, codes: Any) -> Target:
        """Where activation has to move the features that have codes (N, code_size) uint8."""
        matrix, offset = self._linear_map
        repeated = {
            "matrix": None if matrix is None else np.repeat(matrix[None], len(codes), axis=0),
            "offset": None if offset is None else np.repeat(offset[None], len(codes), axis=0),
        }
        if isinstance(self.inner, faiss.IndexLSH):
            return Target(signs=self._signs(codes), **repeated)
        points = self.index.sa_decode(codes)
        return Target(points=points, cells=self._cells(codes) if self.has_cells else None, **repeated)

    def _signs(self, codes: Any) -> Array:
        bits = np.unpackbits(codes, axis=1, bitorder="little")[:, : self.inner.nbits]
        return bits.astype(np.float32) * 2 - 1

    def _cells(self, codes: Any) -> Array:
        """(N, M, T): for each code, its own cell's centroid and then those nearest to it."""
        own = self.cells_of(codes).astype(np.int64)
        near = self._nearest_cells[own].copy()
        # A cell is nearest to itself, unless two centroids are the same point.
        near[near == own[:, None]] = near[:, 0][np.nonzero(near == own[:, None])[0]]
        near[:, 0] = own
        cells: Array = self._centroids[near]
        return cells

    @cached_property
    def _centroids(self) -> Array:
        quantizer = faiss.downcast_index(self.inner.quantizer)
        centroids: Array = quantizer.reconstruct_n(0, quantizer.ntotal)
        return centroids

    @cached_property
    def _nearest_cells(self) -> Any:
        _, near = faiss.knn(self._centroids, self._centroids, min(_NEIGHBOUR_CELLS, len(self._centroids)))
        return near

    @cached_property
    def _linear_map(self) -> tuple[Array | None, Array | None]:
        """The transforms, LSH's own rotation and thresholds as one y = A x + b; (None, None) where y = x."""
        steps = [_linear(transform) for transform in self.transforms]
        if isinstance(self.inner, faiss.IndexLSH):
            steps.append(_hyperplanes(self.inner))
        if not steps:
            return None, None
        matrix, offset = steps[0]
        for next_matrix, next_offset in steps[1:]:
            matrix, offset = next_matrix @ matrix, next_matrix @ offset + next_offset
        return matrix, offset


def _lend(holder: Any, member: str, lent: Any) -> None:
    """Set a member that FAISS uses but does not free. SWIG believes that the holder takes over what it is set to, so
    that nothing would free it (https://github.com/facebookresearch/faiss/issues/1971)."""
    with RememberSwigOwnership(lent):
        setattr(holder, member, lent)


def _hyperplanes(lsh: Any) -> tuple[Array, Array]:
    """Matrix (bits, d) and offset (bits,) of the projections whose signs are the code."""
    matrix, offset = np.eye(lsh.nbits, lsh.d, dtype=np.float32), np.zeros(lsh.nbits, dtype=np.float32)
    if lsh.rotate_data:
        matrix, offset = _linear(lsh.rrot)
    return matrix, offset - faiss.vector_to_array(lsh.thresholds) if lsh.train_thresholds else offset


def _linear(transform: Any) -> tuple[Array, Array]:
    """Matrix (out, in) and offset (out,) of a linear transform, from its outputs for zero and the unit vectors: FAISS'
    transforms share no other interface than `apply`."""
    known = faiss.downcast_VectorTransform(transform)
    inputs = np.vstack([np.zeros((1, known.d_in)), np.eye(known.d_in)]).astype(np.float32)
    outputs = known.apply(inputs)
    return np.ascontiguousarray((outputs[1:] - outputs[0]).T), outputs[0]
