"""FAISS on a GPU: where indexes are trained and calibrated, and where everything is compared with everything.

Codes are made and queries answered by the processor alone: workers with and without a GPU make the same codes, and one
query takes no longer than a copy to a GPU. What a GPU computes is the CPU's within rounding.

FAISS ends the process over any CUDA error but a lack of memory (``CUDA_VERIFY`` in its gpu/utils/DeviceUtils.h), such
as a GPU that it has no code for. So a GPU is first tried in a process of its own, and left alone when it is full.
"""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import faiss
import numpy as np
import numpy.typing as npt
import torch

import workers
from workers.index.codec.family import Family

__all__ = ["LEAST_WORK", "Gpu", "Nearest", "has_gpu_form", "on_gpu", "use_gpu"]

logger = logging.getLogger(__name__)

# Multiplications: three seconds of a core where matrices are multiplied, fifty where a rotation trains. The first use
# of a GPU takes seconds, for its trial; how many, and how fast a GPU is, was not measured.
LEAST_WORK: Final = 1e11
# FAISS takes this at once, and gives it back in the end; its tiles of distances are made for a gigabyte.
_TEMPORARY_BYTES: Final = 1 << 30
_PINNED_BYTES: Final = 64 << 20  # of the host's memory, for copies to the GPU
_PAGE_BYTES: Final = 256 << 20  # of queries, or of what they are compared with, on the GPU at once
# The above, the code of FAISS and cuBLAS, and what batches of the worker's own network may need meanwhile.
_LEAST_FREE_BYTES: Final = 3 << 30
# Lists grow by doubling; and of what is free, half is left to others.
_COPIES_THAT_FIT: Final = 4
_TRIAL_S: Final = 120
_PACKAGES: Final = Path(workers.__file__).resolve().parent.parent

Array = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
Nearest: TypeAlias = Callable[[Array, Array, int], tuple[Array, Positions]]  # as :meth:`Gpu.nearest`
_T = TypeVar("_T")


class Gpu:
    """A GPU while :func:`on_gpu` runs something on it; what it holds there is freed with it. Not thread-safe.

    Args:
        number: of the GPU, as CUDA counts those that this process may see.
        free_bytes: of its memory.
    """

    def __init__(self, number: int, free_bytes: float = math.inf) -> None:
        self._number = number
        self._free_bytes = free_bytes
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_TEMPORARY_BYTES)
        self._resources.setPinnedMemory(_PINNED_BYTES)

    def flat(self, dimension: int) -> Any:
        """An empty index that compares by squared L2, for k-means."""
        config = faiss.GpuIndexFlatConfig()
        config.device = self._number
        config.use_cuvs = False  # it would take queries to the GPU whole, however many there are
        return faiss.GpuIndexFlatL2(self._resources, dimension, config)

    def copied(self, index: Any) -> Any:
        """An index in RAM, but for its transforms, on the GPU: to be searched, at most 2,048 deep.

        Raises:
            RuntimeError: it is too large, or FAISS has no such index for a GPU.
        """
        size = _bytes_of(Family(index))
        if _COPIES_THAT_FIT * size > self._free_bytes:
            raise RuntimeError(f"an index of {size / 2**30:.1f} GiB is too large for {self._free_bytes / 2**30:.1f}")
        options = faiss.GpuClonerOptions()
        options.use_cuvs = False
        return faiss.index_cpu_to_gpu(self._resources, self._number, Family(index).inner, options)

    def nearest(self, queries: Array, features: Array, k: int) -> tuple[Array, Positions]:
        """Cosines, largest first, and positions (Q, k) of the `k` features (N, D), at most N and 2,048, that have the
        largest with queries (Q, D): all are compared, part by part. Either may be mapped from a file."""
        return faiss.knn_gpu(  # type: ignore[no-any-return]
            self._resources, *(np.ascontiguousarray(some, dtype=np.float32) for some in (queries, features)), k,
            metric=faiss.METRIC_INNER_PRODUCT, device=self._number,
            vectorsMemoryLimit=_PAGE_BYTES, queriesMemoryLimit=_PAGE_BYTES,
        )  # fmt: skip


def has_gpu_form(index: Any) -> bool:
    """Whether FAISS can search such an index on a GPU."""
    inner = Family(index).inner
    if isinstance(inner, faiss.IndexIVFPQ):
        return bool(inner.pq.nbits == 8)
    return isinstance(inner, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer)


def _bytes_of(family: Family) -> int:
    """Codes, positions and centroids."""
    inner = family.inner
    if not family.has_cells:
        return int(inner.ntotal * inner.code_size)
    return int(inner.ntotal * (inner.code_size + 8) + inner.nlist * inner.d * 4)


class _Lender:
    """Lends the GPU that FAISS uses in this process, if any, to one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._device = torch.device("cpu")
        self._least_work = math.inf
        self._usable: bool | None = None  # not known before the trial
        self._lent: Gpu | None = None

    def choose(self, device: torch.device, least_work: float) -> None:
        with self._lock:
            self._least_work = least_work if device.type == "cuda" else math.inf
            if device != self._device:
                self._device, self._usable = device, None

    def is_worth(self, work: float) -> bool:
        return work >= self._least_work

    @contextmanager
    def lent(self, what: str) -> Iterator[Gpu | None]:
        """None where the GPU cannot be used, which the log says. Its thread may borrow it again meanwhile."""
        with self._lock:
            if self._lent is not None:
                yield self._lent
                return
            self._lent = self._gpu(what)
            try:
                yield self._lent
            finally:
                self._lent = None

    def _gpu(self, what: str) -> Gpu | None:
        number = self._device.index if self._device.index is not None else torch.cuda.current_device()
        if self._usable is None:
            refusal = _refusal(number)
            self._usable = not refusal
            if refusal:
                logger.warning("FAISS trains and calibrates on the CPU: %s", refusal)
        if not self._usable:
            return None
        torch.cuda.empty_cache()  # what torch keeps for later is free too
        free, _ = torch.cuda.mem_get_info(number)
        if free < _LEAST_FREE_BYTES:
            logger.warning(
                "%s runs on the CPU: of the GPU's memory %.1f GiB are free, and %d are needed",
                what, free / 2**30, _LEAST_FREE_BYTES >> 30,
            )  # fmt: skip
            return None
        logger.info("%s runs on GPU %d", what, number)
        return Gpu(number, free)


_LENDER: Final = _Lender()


def use_gpu(device: torch.device, least_work: float = LEAST_WORK) -> None:
    """Have FAISS use the GPU that the extractor uses; with a CPU, none. For composition roots: without it, FAISS uses
    none.

    Args:
        least_work: how many multiplications are worth it.
    """
    _LENDER.choose(device, least_work)


def on_gpu(what: str, work: float, with_gpu: Callable[[Gpu], _T], without: Callable[[], _T]) -> _T:
    """The result of `with_gpu`, computed with the GPU of :func:`use_gpu`; of `without` where there is none, it is not
    worth it or full, or FAISS raises an error on it.

    Args:
        what: names the work in the log.
        work: about how many multiplications it takes.
    """
    gpu: Gpu | None = None
    if _LENDER.is_worth(work):
        try:
            with _LENDER.lent(what) as gpu:
                if gpu is not None:
                    return with_gpu(gpu)
        except RuntimeError as error:  # of FAISS or torch
            logger.warning("%s runs on the CPU: on the GPU it failed: %s", what, _first_line(str(error)))
            gpu = None  # its memory is freed before the CPU begins
    return without()


def _refusal(number: int) -> str:
    """Why FAISS cannot use this GPU; "" where it can."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS is built without GPUs; install faiss-gpu in place of faiss-cpu."
    command = [sys.executable, "-m", "workers.index.codec.gpu_trial", str(number)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=_TRIAL_S, check=False, cwd=_PACKAGES
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:  # it cannot start, or takes too long
        return f"a trial on GPU {number} failed: {error}"
    if not ended.returncode:
        return ""
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    return f"a trial on GPU {number} ended with {ended.returncode}: {lines[-1] if lines else 'it said nothing'}"


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
