"""Which jobs share a process: most run beside each other, a suspect of a worker's death runs alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.errors import WorkerStopping

__all__ = ["Isolation"]


class Isolation:
    """A lock for many readers and one writer; a waiting writer goes first. Thread-safe.

    Jobs that run beside each other die together, so after such a death none of them can be blamed. Each is repeated
    alone: the one that is to blame takes no other with it, and the others end well.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._want_alone = 0
        self._stopping = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others; waits while a job runs alone, or wants to.

        Raises:
            WorkerStopping: :meth:`stop` was called meanwhile.
        """
        with self._changed:
            self._wait_for(lambda: not self._alone and not self._want_alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run without any other job in this process; waits until it is empty. Errors as in :meth:`shared`."""
        with self._changed:
            self._want_alone += 1
            try:
                self._wait_for(lambda: not self._alone and not self._inside)
                self._alone = True
            finally:
                self._want_alone -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def stop(self) -> None:
        """End all waiting: the jobs are left to other workers."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _wait_for(self, free: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._stopping or free())
        if not free():
            raise WorkerStopping("This worker is stopping: the job is sent to another one.")
