"""Searching: which image comes first for each copy, without an index and with one, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Codes, Features, append, search, search_many
from workers.index.codec.gpu import Nearest, on_gpu
from workers.index.codec.probes import one_thread

__all__ = [
    "Candidates", "FirstMatches", "Index", "Positions", "exact_first_matches", "exact_matches", "found_by_edit",
    "recall_by_edit",
]  # fmt: skip

# Features, and queries that are compared with them at once: 256 MiB of cosines.
_CHUNK: Final = 16_384
_QUERIES: Final = 4_096
_TIMED: Final = 21
NOTHING: Final = -1

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FirstMatches:
    """The first matches of M queries.

    Attributes:
        positions: (M,) int64 among the registered photographs; −1 for a reference, or for nothing.
        distances: (M,) float32; infinite for nothing.
        ms: milliseconds for a query on this machine, one after the other: the mean.
        spread: the 5th, 50th and 95th percentile of that; None where few queries were timed.
    """

    positions: Positions
    distances: Features
    ms: float
    spread: tuple[float, float, float] | None = None

    def part(self, count: int) -> FirstMatches:
        """The first `count` queries only."""
        return FirstMatches(self.positions[:count], self.distances[:count], self.ms, self.spread)


@dataclass(frozen=True)
class Candidates:
    """The nearest k entries of M queries, nearest first: positions and distances (M, k) as in FirstMatches."""

    positions: Positions
    distances: Features


class Index:
    """References and registered photographs under one codec."""

    def __init__(self, codec: Codec, references: Codes, registered: Codes) -> None:
        self._codec = codec
        self._references = len(references)
        self._index = codec.filled(references)
        append(self._index, registered)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def first_matches(self, queries: Features, nprobe: int) -> FirstMatches:
        """Search for queries (M, D), one by one, on one thread."""
        positions = np.full(len(queries), NOTHING, dtype=np.int64)
        distances = np.full(len(queries), np.inf, dtype=np.float32)
        ends = np.empty(len(queries) + 1)
        with one_thread():
            ends[0] = time.perf_counter()
            for i, query in enumerate(queries):
                for position, distance in search(self._index, self._codec.probe(query, nprobe), 1):
                    positions[i], distances[i] = position - self._references, distance
                ends[i + 1] = time.perf_counter()
        times = 1000 * np.diff(ends)
        low, middle, high = map(float, np.percentile(times, (5, 50, 95))) if len(times) else (0.0, 0.0, 0.0)
        mean = float(times.mean()) if len(times) else 0.0
        return FirstMatches(np.maximum(positions, NOTHING), distances, mean, (low, middle, high))

    def candidates(self, queries: Features, nprobe: int, k: int) -> Candidates:
        """The nearest `k` entries of queries (M, D), all at once."""
        parts = [
            search_many(self._codec, self._index, np.asarray(queries[start : start + _QUERIES]), nprobe, k)
            for start in range(0, len(queries), _QUERIES)
        ]
        distances, positions = (np.concatenate(values) for values in zip(*parts, strict=True))
        distances = np.where(positions < 0, np.inf, distances).astype(np.float32)
        return Candidates(np.maximum(positions - self._references, NOTHING), distances)


def exact_first_matches(references: Features, registered: Features, queries: Features) -> FirstMatches:
    """The same without an index: every query is compared with every feature."""
    positions, distances = exact_matches(references, registered, queries)
    return FirstMatches(positions, distances, _exact_ms(references, queries))


def exact_matches(references: Features, registered: Features, queries: Features) -> tuple[Positions, Features]:
    """Positions and squared distances (M,) of the nearest to queries (M, D), as in :class:`FirstMatches`."""
    return on_gpu(
        "An exact search", float(len(queries)) * (references.size + registered.size),
        lambda gpu: _matches_by(gpu.nearest, references, registered, queries),
        lambda: _matches_in_parts(references, registered, queries),
    )  # fmt: skip


def _matches_by(
    nearest: Nearest, references: Features, registered: Features, queries: Features
) -> tuple[Positions, Features]:
    """A GPU finds the nearest of either kind; which is nearer, of a reference and its copy too, is told here."""
    found = [nearest(queries, features, 1)[1][:, 0] for features in (references, registered)]
    others, own = (
        _cosines(queries, features, positions)
        for features, positions in zip((references, registered), found, strict=True)
    )
    return np.where(own > others, found[1], NOTHING), 2 - 2 * np.maximum(own, others)


def _cosines(queries: Features, features: Features, found: Positions) -> Features:
    """(M,) of queries (M, D) and the features (N, D) at positions (M,)."""
    parts = [
        np.einsum("nd,nd->n", queries[start : start + _QUERIES], features[found[start : start + _QUERIES]])
        for start in range(0, len(queries), _QUERIES)
    ]
    return np.concatenate(parts)


def _matches_in_parts(references: Features, registered: Features, queries: Features) -> tuple[Positions, Features]:
    parts = [
        _exact(references, registered, np.asarray(queries[start : start + _QUERIES]))
        for start in range(0, len(queries), _QUERIES)
    ]
    positions, distances = (np.concatenate(values) for values in zip(*parts, strict=True))
    return positions, distances


def _exact(references: Features, registered: Features, queries: Features) -> tuple[Positions, Features]:
    """Positions and squared distances of the first matches of queries (M, D)."""
    best = np.full(len(queries), -np.inf, dtype=np.float32)
    for start in range(0, len(references), _CHUNK):
        nearest = (queries @ np.asarray(references[start : start + _CHUNK]).T).max(axis=1)
        best = np.maximum(best, nearest)
    positions = np.full(len(queries), NOTHING, dtype=np.int64)
    cosines = queries @ registered.T
    own = cosines.max(axis=1)
    positions[own > best] = cosines.argmax(axis=1)[own > best]
    return positions, 2 - 2 * np.maximum(own, best)


def _exact_ms(references: Features, queries: Features) -> float:
    """Milliseconds of a comparison with all references, on one thread: the median of a few queries."""
    times = []
    for query in queries[:_TIMED]:
        began = time.perf_counter()
        for start in range(0, len(references), _CHUNK):
            # einsum does not use BLAS, whose number of threads cannot be set from here
            np.einsum("nd,d->n", references[start : start + _CHUNK], query).max()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def found_by_edit(first: FirstMatches, edits: Iterable[str]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of N photographs are found in each edit (N,), where `first` answers the edits one after the other, each of
    the photographs in order."""
    names = list(edits)
    found = first.positions.reshape(len(names), -1)
    right = np.arange(found.shape[1])
    return {name: row == right for name, row in zip(names, found, strict=True)}


def recall_by_edit(first: FirstMatches, edits: Iterable[str]) -> dict[str, float]:
    """R@1 of each edit; arguments as in :func:`found_by_edit`."""
    return {name: float(found.mean()) for name, found in found_by_edit(first, edits).items()}
