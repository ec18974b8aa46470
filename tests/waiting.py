"""Waiting in tests: poll with a deadline, never sleep and hope."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], why: str = "waited in vain", deadline_s: float = 60.0) -> T:
    """Poll until `condition` gives something true, and return that; fail with `why` after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return value
