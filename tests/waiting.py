"""Waiting in tests: poll with a deadline, never sleep for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Guards against hanging, nothing else: no test expects anything to be this fast, on any machine, under any load.
LIMIT_S = 300.0


def wait_for(
    condition: Callable[[], T], why: str | Callable[[], str] = "waited in vain", deadline_s: float = LIMIT_S
) -> T:
    """Poll until `condition` returns something true, and return that; after the deadline, fail and say `why`."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, why() if callable(why) else why
        time.sleep(0.05)
    return value
