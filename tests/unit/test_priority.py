"""Threads that compute activations leave cores to others, whatever priority the process was started at."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.device.priority import lower_priority


def lowered_from(niceness: int) -> int:
    """The niceness of a thread that had this one and was lowered."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, niceness)
    lower_priority()
    return os.getpriority(os.PRIO_PROCESS, thread)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is the whole process's")
@pytest.mark.parametrize(("niceness", "expected"), [(os.getpriority(os.PRIO_PROCESS, 0), 10), (15, 15)])
def test_a_thread_is_lowered_and_never_raised(niceness: int, expected: int) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lowered_from, niceness).result() == max(expected, niceness)
