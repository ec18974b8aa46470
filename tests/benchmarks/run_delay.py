"""How long threads waited for a core (Linux' *run delay*): what of a pause is the machine's, not the program's.

A query that takes 60 ms on a machine with twenty programs for two cores may have been ready to run for 55 of them.
Linux adds up, for each thread, how long it was ready to run while no core was free: the second number of its
``schedstat``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["RunDelays", "Taken", "longest"]


class Taken(NamedTuple):
    """Seconds of a call.

    Attributes:
        clock_s: by the clock.
        undelayed_s: less what the calling thread waited for a core. What it waited for others remains: for Python's
            lock or Redis, whose holders may have had no core themselves. A quiet machine takes no longer.
        least_s: less what any thread that it may have waited for had no core, if that was never at the same time. A
            quiet machine takes no less.
    """

    clock_s: float
    undelayed_s: float
    least_s: float


def longest(name: str, taken: Sequence[Taken]) -> dict[str, float]:
    """Milliseconds of the longest calls, each by its own measure."""
    clock_s, undelayed_s, least_s = (1000 * max(seconds) for seconds in zip(*taken, strict=True))
    return {f"{name}_ms": clock_s, f"{name}_undelayed_ms": undelayed_s, f"{name}_least_ms": least_s}


class RunDelays:
    """Reads the run delays of this process' Python threads, and of other processes' main threads. For one thread.

    Args:
        processes: those whose answers this one's threads wait for, such as Redis.

    Raises:
        FileNotFoundError: the system does not count them.
    """

    def __init__(self, *processes: int) -> None:
        self._files = {pid: os.open(f"/proc/{pid}/schedstat", os.O_RDONLY) for pid in processes}
        self._processes = frozenset(processes)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)

    def timed(self, call: Callable[..., object], *arguments: object) -> Taken:
        """Call, and say how long it took. Reading the delays, some 10 µs a thread, counts."""
        began, before = time.perf_counter(), self.read()
        call(*arguments)
        after, clock_s = self.read(), time.perf_counter() - began
        own = threading.get_native_id()
        delays = {thread: 1e-9 * (ns - before.get(thread, 0)) for thread, ns in after.items()}
        return Taken(clock_s, clock_s - delays[own], max(0.0, clock_s - sum(delays.values())))

    def read(self) -> dict[int, int]:
        """Nanoseconds of each thread so far."""
        threads = {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}
        for ended in self._files.keys() - self._processes - threads:
            os.close(self._files.pop(ended))
        delays = {}
        for thread in self._processes | threads:
            try:
                delays[thread] = self.of(thread)
            except (FileNotFoundError, ProcessLookupError):  # it has ended since
                continue
        return delays

    def of(self, thread: int) -> int:
        """Nanoseconds of one thread so far."""
        if thread not in self._files:
            self._files[thread] = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
        return int(os.pread(self._files[thread], 64, 0).split()[1])
