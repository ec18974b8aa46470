"""Calls that several threads make at about the same time, made as one: one round trip, and what is the same for all of
them once.

Calls that come while one is under way are made together, by the first of their threads, once it has ended. A thread
may delay its call by up to `max_delay_s`, for others to join: the first of them whose own delay is over makes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from tasks.errors import Unavailable

__all__ = ["Gathering"]

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class _Group(Generic[_Item, _Answer]):
    """Items of one call; `answers` is None until it was made, and stays so when its thread was interrupted."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.answers: list[_Answer | Exception] | None = None
        self.answered = threading.Event()


class Gathering(Generic[_Item, _Answer]):
    """Thread-safe, and usable again in a forked child.

    Args:
        work: makes one call for some items, and answers them in their order; it may be repeated. Where it fails for
            several, and not because a service is away, each is tried by itself: one of them is to blame.
    """

    def __init__(self, work: Callable[[Sequence[_Item]], Sequence[_Answer]]) -> None:
        self._work = work
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._calling = threading.Lock()  # held for the time of a call
        self._next: _Group[_Item, _Answer] | None = None
        self._pid = os.getpid()  # last: another thread of the child may look at it meanwhile

    def __call__(self, item: _Item, max_delay_s: float = 0.0) -> _Answer:
        """The answer to one item; raises what `work` raises for it.

        Args:
            max_delay_s: for how long others may join, in seconds.
        """
        if self._pid != os.getpid():  # locks and group are the parent's
            self._begin()
        with self._lock:
            group = self._next = self._next or _Group()
            place = len(group.items)
            group.items.append(item)
        if max_delay_s > 0:
            group.answered.wait(max_delay_s)
        if group.answers is None:
            self._call(group)
        assert group.answers is not None
        answer = group.answers[place]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _call(self, group: _Group[_Item, _Answer]) -> None:
        with self._calling:
            if group.answers is None:
                self._close(group)
                group.answers = self._tried(group.items)
                group.answered.set()

    def _close(self, group: _Group[_Item, _Answer]) -> None:
        """Let no more items in."""
        with self._lock:
            if self._next is group:
                self._next = None

    def _tried(self, items: Sequence[_Item]) -> list[_Answer | Exception]:
        try:
            return list(self._work(items))
        except Exception as error:
            if len(items) == 1 or isinstance(error, Unavailable):
                return [error] * len(items)
        return [self._tried([item])[0] for item in items]
