"""What all errors have in common."""

from __future__ import annotations

__all__ = [
    "AiiError",
]


class AiiError(Exception):
    """Base of the tree, and itself the code of a failure that is a bug.

    What to do: Read the worker's log: it has the traceback under the job's id.
    """

    code = "internal"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
