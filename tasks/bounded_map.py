"""Work on many things in threads without holding many of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["bounded_map"]

T = TypeVar("T")
R = TypeVar("R")


def bounded_map(call: Callable[[T], R], things: Iterable[T], workers: int) -> Iterator[R]:
    """``map`` in threads, in order. Unlike an executor's own, which reads all things at once, it reads at most two a
    thread ahead of the results that the caller has taken. After an error, or when the caller takes no more, no further
    call begins."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for thing in things:
                waiting.append(pool.submit(call, thing))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
