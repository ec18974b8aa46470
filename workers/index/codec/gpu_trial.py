"""Whether FAISS works on a GPU (``python -m workers.index.codec.gpu_trial NUMBER``), in a process that it may end.

It trains, searches and compares on it, beside torch, as a worker does, and holds the results against the CPU's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np
import torch

from workers.index.codec.codec import Codec, search_many, trained_index
from workers.index.codec.gpu import Gpu, Nearest

__all__ = ["disagreement", "try_gpu"]

_FACTORIES: Final = ("IVF16,PQ4x8", "Flat", "IVF16,Flat", "IVF16,SQ8")  # one of each kind that a GPU can search
_FEATURES: Final = 1_000
_QUERIES: Final = 100
_DEPTH: Final = 200  # of a calibration; on a GPU, FAISS finds more of the nearest by other code than few
_ROUNDING: Final = 1e-3


def try_gpu(number: int) -> str:
    """What is wrong; "" when nothing is."""
    if number >= faiss.get_num_gpus():
        return f"FAISS sees {faiss.get_num_gpus()} GPUs."
    beside, gpu = torch.ones(8, device=f"cuda:{number}"), Gpu(number)
    found = disagreement(gpu.flat, gpu.copied, gpu.nearest)
    return found or ("" if float(beside.sum()) == len(beside) else "torch does not add beside it.")


def disagreement(flat: Callable[[int], Any], copied: Callable[[Any], Any], nearest: Nearest) -> str:
    """In what the methods of a :class:`Gpu` differ from the CPU; "" where they do not."""
    random = np.random.default_rng(0).standard_normal((_FEATURES, 64)).astype(np.float32)
    features = random / np.linalg.norm(random, axis=1, keepdims=True)
    queries = features[:_QUERIES]
    for factory in _FACTORIES:
        codec = Codec(trained_index(factory, features, flat), factory)
        index = codec.filled(codec.encode(features))
        expected, found = (search_many(codec, some, queries, 16, _DEPTH)[0] for some in (index, copied(index)))
        if not np.allclose(expected, found, atol=_ROUNDING):
            return f"distances in {factory} are not the CPU's."
    cosines, _ = nearest(queries, features, 2)
    if not np.allclose(cosines, np.sort(queries @ features.T, axis=1)[:, :-3:-1], atol=_ROUNDING):
        return "cosines of features are not the CPU's."
    return ""


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)  # a team of threads takes minutes where other processes have the cores
    sys.exit(try_gpu(int(sys.argv[1])) or None)
