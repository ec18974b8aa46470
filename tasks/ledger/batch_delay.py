"""How long a job's calls of the ledger may wait for those of other jobs, so that one script serves several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["BatchDelay"]

_FEWEST: Final = 4  # jobs at work in the process; those of fewer would wait in vain
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
        self._began: dict[int, float] = {}  # by thread
        self._average_s = 0.0  # that jobs took lately

    @contextmanager
    def job(self) -> Iterator[None]:
        """Within the block, the calling thread works at a job that is in no hurry."""
        thread, began = threading.get_ident(), self._clock()
        self._began[thread] = began
        try:
            yield
        finally:
            del self._began[thread]
            self._average_s += _WEIGHT * (self._clock() - began - self._average_s)

    def max_s(self, share: float) -> float:
        """For how long a call of this thread's job may wait: a share of the time that a job takes. 0 where there is no
        such job, and while few are at work."""
        began = self._began.get(threading.get_ident())
        if began is None or len(self._began) < _FEWEST:
            return 0.0
        return min(_LONGEST_S, share * max(self._average_s, self._clock() - began))
