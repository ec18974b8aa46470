"""How long a job's calls of the ledger may wait for those of other jobs, so that one script serves several."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["BatchDelay"]

_FEWEST: Final = 4  # jobs at work in the process; fewer seldom make calls at about the same time
_LONGEST_S: Final = 0.25
_WEIGHT: Final = 0.2  # of the job that ended last in the average


class BatchDelay:
    """The longest delay of a batch of calls, by how many jobs are at work in this process and how long jobs take.

    Each job has a thread of its own. Thread-safe without a lock, which a forked child could inherit from a thread that
    it has not.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[
            int, dict[int, float]
        ] = {}  # by process, as a forked child has no job of its parent, and thread
        self._average_s = 0.0  # that jobs took lately

    @contextmanager
    def job(self) -> Iterator[None]:
        """Within the block, the calling thread works at a job that is in no hurry."""
        thread, began = threading.get_ident(), self._clock()
        self._at_work()[thread] = began
        try:
            yield
        finally:
            self._at_work().pop(thread, None)  # None: in a child that was forked within the block
            self._average_s += _WEIGHT * (self._clock() - began - self._average_s)

    def max_s(self, share: float) -> float:
        """For how long a call of this thread's job may wait: a share of the time that a job takes. 0 where there is no
        such job, and while few are at work."""
        at_work = self._at_work()
        began = at_work.get(threading.get_ident())
        if began is None or len(at_work) < _FEWEST:
            return 0.0
        return min(_LONGEST_S, share * max(self._average_s, self._clock() - began))

    def _at_work(self) -> dict[int, float]:
        """When the jobs of this process began, by thread."""
        return self._began.setdefault(os.getpid(), {})
