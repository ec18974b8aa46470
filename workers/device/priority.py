"""Queries come before activations where cores are short: activations are many and wait for the device anyway."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

__all__ = ["lower_priority"]

_NICENESS: Final = 10  # from 0 to 19; a thread of 0 gets nine times the share of one of 10 (sched(7))


def lower_priority() -> None:
    """From now on, the calling thread gets the time that queries, servers and producers on this machine leave."""
    if sys.platform == "linux":  # elsewhere niceness is the whole process's
        thread = threading.get_native_id()
        # A worker may have been started at a higher one, and none may lower its own.
        os.setpriority(os.PRIO_PROCESS, thread, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
