"""Which index for how many images: a proposal with its reasons, from what was measured to find most, and what
operations cost on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np

from tasks.errors import InvalidRequest
from tasks.messages import USUAL_NPROBE, Frozen
from workers.index.codec.coarse import TWO_STAGE_FLOATS
from workers.index.codec.measured import (
    CELL_BYTES,
    Measured,
    best_measured,
    measured_setting,
    other_measured,
    product_family,
    rotated_dimensions,
)
from workers.index.codec.probes import one_thread
from workers.index.codec.stored import FeatureFormat, kept_twice

__all__ = [
    "POINTS_PER_CELL",
    "USUAL_BYTES",
    "Costs",
    "Proposal",
    "cell_bytes",
    "measure_costs",
    "paper_cells",
    "propose",
    "usual_cells",
]

BYTE_CENTROIDS: Final = 256  # of a code's byte; FAISS needs at least as many features to train them
_FLAT: Final = "Flat"
USUAL_BYTES: Final = 8  # of a code, without its cell's number: as in the paper
_MOST_BYTES: Final = 64
# A search that compares a query with every feature and takes no longer than this needs no index.
_EXHAUSTIVE_MS: Final = 1.0
POINTS_PER_CELL: Final = 39  # FAISS warns when a cell is trained on fewer
_MOST_CELLS: Final = 65_536
_MOST_IN_A_CELL: Final = 1_000
# How much less it costs to find the nearest of many centroids in two stages; see coarse.py.
_TWO_STAGE_GAIN: Final = 6.0
# Beside the code: its position in the FAISS list, an asset_id of 64 digits, an offset in each of two tables, and its
# place in the lookup.
_ENTRY_BYTES: Final = 8 + 64 + 8 + 8 + 8


@dataclass(frozen=True)
class Costs:
    """Seconds on one thread: a multiply-add of a distance, a table look-up for a byte of a code, a byte compared by
    Hamming distance."""

    multiply_add: float
    look_up: float
    hamming: float


@dataclass(frozen=True)
class _Request:
    """The arguments of :func:`propose` that are not of the collection."""

    max_bytes: int | None
    max_ms: float | None
    nprobe: int


class Proposal(Frozen):
    """A factory string with its expected costs; `search_ms` is an estimate for one thread, of a search in `nprobe`
    cells. `feature_bytes` are those of an image's stored feature, 0 where none are stored, and among `file_bytes`."""

    factory: str
    code_bytes: int
    file_bytes: int
    search_ms: float
    nprobe: int
    reasons: list[str]
    feature_bytes: int = 0

    def with_features(self, images: int, stored: FeatureFormat) -> Proposal:
        """The same with stored features.

        Raises:
            InvalidRequest: the index keeps features itself.
        """
        if self.factory == _FLAT:
            raise kept_twice(self.factory, "omit `--features`, or plan for more images")
        added = stored.row_bytes
        return self.model_copy(update={"feature_bytes": added, "file_bytes": self.file_bytes + images * added})


def usual_cells(images: int) -> int:
    """How many cells: few, since a query that searches a given number of them then meets more of the codes, but so many
    that none holds more than some thousand; fewer where too few images would train them.

    Of 40,000 images, 256 cells find more at nprobe 16 than 512, in a byte less; a search takes 0.01 ms longer.
    """
    return _trainable(max(np.sqrt(images), images / _MOST_IN_A_CELL), images)


def paper_cells(images: int) -> int:
    """How many cells the paper's index has, 4,096 for a million images, for another number of images."""
    return _trainable(4 * np.sqrt(images), images)


def _trainable(wanted: float, images: int) -> int:
    """The nearest power of two, or less where too few images would train so many."""
    cells = 1 << max(4, round(np.log2(max(wanted, 1))))  # of no image too
    while cells > 16 and cells * POINTS_PER_CELL > images:
        cells //= 2
    return int(min(cells, _MOST_CELLS))


def product_bytes(dimension: int, most: int = USUAL_BYTES) -> int:
    """How many one-byte parts a product code of such features can have, at most `most`; FAISS wants equal parts."""
    return next(sub for sub in range(min(most, dimension), 0, -1) if dimension % sub == 0)


def measure_costs(dimension: int) -> Costs:
    """Measure the costs on this machine, in a fraction of a second."""
    random = np.random.default_rng(0)
    centroids = random.standard_normal((4_096, dimension), dtype=np.float32)
    coarse = faiss.IndexFlatL2(dimension)
    coarse.add(centroids)
    codes = faiss.IndexPQ(8, 8, 8)
    codes.train(random.standard_normal((256, 8), dtype=np.float32))
    codes.add(random.standard_normal((100_000, 8), dtype=np.float32))
    signs = faiss.IndexLSH(64, 64, False)
    signs.add(random.standard_normal((100_000, 64), dtype=np.float32))
    return Costs(
        multiply_add=_seconds(coarse, centroids[:1]) / centroids.size,
        look_up=_seconds(codes, centroids[:1, :8]) / (100_000 * 8),
        hamming=_seconds(signs, random.standard_normal((1, 64), dtype=np.float32)) / (100_000 * 8),
    )


def propose(
    images: int, dimension: int, costs: Costs, max_bytes: int | None = None, max_ms: float | None = None,
    nprobe: int = USUAL_NPROBE,
) -> Proposal:  # fmt: skip
    """An index that can be trained on `images` features of `dimension` numbers each.

    Args:
        max_bytes: most bytes of code for an image; by default 8 and the cell's number, as in the paper.
        max_ms: most milliseconds for a search on one thread.
        nprobe: how many cells a search visits.

    Raises:
        InvalidRequest: no index is within the budget; the message says what is possible.
    """
    for candidate in _exhaustive(images, dimension, costs, max_bytes, max_ms):
        if max_ms is None or candidate.search_ms <= max_ms:
            return candidate
    return _with_cells(images, dimension, _Request(max_bytes, max_ms, nprobe), costs)


def _exhaustive(
    images: int, dimension: int, costs: Costs, max_bytes: int | None, max_ms: float | None
) -> Iterator[Proposal]:
    """Indexes that compare a query with every code, best first. They miss no code for lying in another cell, and are
    preferred when the budget allows their search time."""
    flat_ms = 1000 * costs.multiply_add * dimension * images
    if images < BYTE_CENTROIDS or (max_bytes and max_bytes >= 4 * dimension and flat_ms <= (max_ms or _EXHAUSTIVE_MS)):
        few = f"{images:,} images are too few to train a code on" if images < BYTE_CENTROIDS else "the budget allows it"
        yield _whole(_FLAT, images, 4 * dimension, flat_ms, f"{few}, and uncompressed features find the most")
    if max_ms is None or images < BYTE_CENTROIDS:
        return
    sub = min(max_bytes or USUAL_BYTES, _MOST_BYTES, dimension)
    rotated = rotated_dimensions(dimension, sub)
    ms = 1000 * (costs.look_up * sub * images + costs.multiply_add * rotated * (dimension + 256))
    reason = "all codes can be compared within the budget, so none is missed for lying in another cell"
    yield _whole(f"OPQ{sub}_{rotated},PQ{sub}x8", images, sub, ms, reason)
    if 8 * sub <= min(dimension, images):
        ms = 1000 * (costs.hamming * sub * images + costs.multiply_add * 8 * sub * dimension)
        reason = "binary codes are compared quickest: all of them within the budget, so none is missed in another cell"
        yield _whole(f"PCA{8 * sub},LSH", images, sub, ms, reason)


def _whole(factory: str, images: int, code_bytes: int, ms: float, reason: str) -> Proposal:
    size = images * (code_bytes + _ENTRY_BYTES)
    return Proposal(factory=factory, code_bytes=code_bytes, file_bytes=size, search_ms=ms, nprobe=1, reasons=[reason])


def _with_cells(images: int, dimension: int, request: _Request, costs: Costs) -> Proposal:
    parts, why_parts = _parts(dimension, request.max_bytes)
    estimate = _estimate(images, dimension, parts, costs, request.nprobe)
    cells, why_cells = _cells(images, estimate, request.max_ms, request.nprobe)
    factory = product_family(dimension, parts, cells, request.nprobe)
    inner, rotation = _inner_dimensions(dimension, parts, request.nprobe)
    code_bytes = parts + cell_bytes(cells)
    return Proposal(
        factory=factory,
        code_bytes=code_bytes,
        file_bytes=images * (code_bytes + _ENTRY_BYTES) + 4 * (rotation + inner * (cells + BYTE_CENTROIDS)),
        search_ms=1000 * estimate(cells),
        nprobe=min(request.nprobe, cells),
        reasons=[why_parts, *_measured_reasons(parts + CELL_BYTES, request.nprobe), why_cells],
    )


def _measured_reasons(max_bytes: int, nprobe: int) -> Iterator[str]:
    """What was measured to find most within so many bytes, beside the other kind of as many."""
    best = best_measured(max_bytes, nprobe)
    if best is None:
        return
    found = f"{best.factory} found {_share(best)} of activated images' copies at nprobe {best.nprobe}"
    other = other_measured(best)
    beside = f", {other.factory} {_share(other)}" if other else ""
    yield f"of {best.bytes} bytes, {found}{beside}; {measured_setting()}: python -m tests.benchmarks.frontier"


def _share(row: Measured) -> str:
    return f"{row.recall:.3f} ({row.low:.3f} to {row.high:.3f})"


def _parts(dimension: int, max_bytes: int | None) -> tuple[int, str]:
    """Bytes of a product code, and the reason."""
    if max_bytes is None:
        return min(USUAL_BYTES, dimension), "8 bytes an image are what the paper's main result uses"
    if max_bytes < CELL_BYTES + 1:
        raise InvalidRequest(f"{max_bytes} bytes are too few: {CELL_BYTES + 1} are the least.")
    parts = min(max_bytes - CELL_BYTES, _MOST_BYTES, dimension)
    return parts, f"{parts} bytes and the cell's number keep to {max_bytes}"


def _cells(images: int, estimate: Callable[[int], float], max_ms: float | None, nprobe: int) -> tuple[int, str]:
    """The usual number of cells, or the nearest to it within the budget; and the reason."""
    usual = usual_cells(images)
    possible = sorted((1 << n for n in range(4, 17)), key=lambda cells: abs(np.log2(cells / usual)))
    possible = [cells for cells in possible if cells * POINTS_PER_CELL <= max(images, 16 * POINTS_PER_CELL)]
    for cells in possible:
        if max_ms is None or 1000 * estimate(cells) <= max_ms:
            codes = f"about {images * min(nprobe, cells) / cells:,.0f} codes to compare with"
            return cells, f"{cells:,} cells leave a search {codes}" + (
                "" if cells == usual else f", within {max_ms} ms"
            )
    least = 1000 * min(estimate(cells) for cells in possible)
    raise InvalidRequest(f"No index finds one of {images:,} images in {max_ms} ms here: {least:.3f} ms are the least.")


def _estimate(images: int, dimension: int, parts: int, costs: Costs, nprobe: int) -> Callable[[int], float]:
    """A search's seconds as a function of the number of cells: to rotate the query, to find the nearest centroids, to
    make each cell's look-up table for a code's bytes, to compare the codes."""
    inner, rotation = _inner_dimensions(dimension, parts, nprobe)

    def seconds(cells: int) -> float:
        searched = min(nprobe, cells)
        compared = cells / _TWO_STAGE_GAIN if cells * inner >= TWO_STAGE_FLOATS else cells
        multiplied = rotation + inner * (compared + BYTE_CENTROIDS * searched)
        return costs.multiply_add * multiplied + costs.look_up * parts * images / cells * searched

    return seconds


def _inner_dimensions(dimension: int, parts: int, nprobe: int) -> tuple[int, int]:
    """Of what the cells divide, fewer after a rotation; and the numbers of the rotation's matrix, 0 without one."""
    if not product_family(dimension, parts, 1, nprobe).startswith("OPQ"):
        return dimension, 0
    inner = rotated_dimensions(dimension, parts)
    return inner, inner * dimension


def cell_bytes(cells: int) -> int:
    """How many bytes FAISS uses for a cell's number."""
    return max(1, (cells - 1).bit_length() + 7 >> 3)


def _seconds(index: Any, query: Any) -> float:
    """The median of some searches on one thread."""
    times = []
    with one_thread():
        for _ in range(15):
            began = time.perf_counter()
            index.search(query, 5)
            times.append(time.perf_counter() - began)
    return float(np.median(times))
