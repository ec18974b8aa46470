"""Calls that several threads make at about the same time, made as one: one round trip, and what is the same for all of
them once.

A thread that calls alone is never kept waiting. Where others have called a moment ago, the first waits for them, for a
bounded time, and makes the call of all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from tasks.errors import Unavailable

__all__ = ["Gathering"]

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

_MOMENT_S: Final = 0.25
_LEADER_S: Final = 60.0  # after it a thread calls alone: the one that was to call for it was interrupted


class _Group(Generic[_Item, _Answer]):
    """Items of one call; `answers` is None when the thread that was to make it was interrupted."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.items: list[_Item] = []
        self.answers: list[_Answer | Exception] | None = None
        self.full = threading.Event()
        self.ended = threading.Event()


class Gathering(Generic[_Item, _Answer]):
    """Thread-safe, and usable again in a forked child.

    Args:
        work: makes one call for some items, and answers them in their order; it may be repeated. Where it fails for
            several, and not because a service is away, each is tried by itself: one of them is to blame.
        longest_s: how long a thread waits for others.
    """

    def __init__(self, work: Callable[[Sequence[_Item]], Sequence[_Answer]], longest_s: float) -> None:
        self._work = work
        self._longest_s = longest_s
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._called: dict[int, float] = {}  # thread → when, on the monotonic clock
        self._open: _Group[_Item, _Answer] | None = None
        self._pid = os.getpid()  # last: another thread of the child may look at it meanwhile

    def __call__(self, item: _Item) -> _Answer:
        """The answer to one item; raises what `work` raises for it."""
        if self._pid != os.getpid():  # lock and group are the parent's
            self._begin()
        with self._lock:
            group, place = self._join(item)
        if place == 0:
            self._lead(group)
        else:
            group.ended.wait(_LEADER_S)
        answer = self._tried([item])[0] if group.answers is None else group.answers[place]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _join(self, item: _Item) -> tuple[_Group[_Item, _Answer], int]:
        now = time.monotonic()
        self._called = {thread: at for thread, at in self._called.items() if now - at < _MOMENT_S}
        self._called[threading.get_ident()] = now
        group = self._open = self._open or _Group(len(self._called))
        group.items.append(item)
        if len(group.items) >= group.expected:
            group.full.set()
            self._open = None
        return group, len(group.items) - 1

    def _lead(self, group: _Group[_Item, _Answer]) -> None:
        try:
            group.full.wait(self._longest_s)
            with self._lock:
                if self._open is group:
                    self._open = None
            group.answers = self._tried(group.items)
        finally:
            with self._lock:  # interrupted while it waited: none may join it any more
                if self._open is group:
                    self._open = None
            group.ended.set()

    def _tried(self, items: Sequence[_Item]) -> list[_Answer | Exception]:
        try:
            return list(self._work(items))
        except Exception as error:
            if len(items) == 1 or isinstance(error, Unavailable):
                return [error] * len(items)
        return [self._tried([item])[0] for item in items]
