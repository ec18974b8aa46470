"""How many threads FAISS takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import faiss

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """For what this thread asks of FAISS within: a single query is answered sooner than others are woken for it."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
