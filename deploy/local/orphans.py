"""Ends a child when its parent ends, even by SIGKILL. Linux only; elsewhere the lock still refuses a second stack."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded here, not in the child: between fork and exec only what is ready may be used.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """For `preexec_fn`: SIGTERM when the parent's thread ends. The flag survives exec (prctl(2))."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
