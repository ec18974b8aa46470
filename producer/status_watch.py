"""``aii status --watch`` in a terminal: refreshed every two seconds, obeying keys meanwhile."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.control import Control
from rich.segment import Segment, SegmentLines

from producer.status import Status
from producer.status_screen import Screen
from tasks.errors import AiiError
from tasks.streams import is_terminal

__all__ = ["watch_in_terminal"]

_EVERY_S: Final = 2.0
_SILENT_S: Final = 3.0
_KEY_S: Final = 0.25  # how long a key is waited for; a changed window is drawn anew as soon


class _Latest:
    """The last status, read in a thread of its own: a service that is silent must not freeze the screen."""

    def __init__(self, read: Callable[[], Status]) -> None:
        self._read = read
        self._state: Status | None = None
        self._problem = ""
        self._answered = time.monotonic()
        threading.Thread(target=self._run, name="status", daemon=True).start()

    def get(self) -> tuple[Status | None, str]:
        """The last status, and why there is no newer one."""
        silent_s = time.monotonic() - self._answered
        if silent_s > _EVERY_S + _SILENT_S:
            return self._state, f"Redis or S3 has not answered for {silent_s:.0f} s"
        return self._state, self._problem

    def _run(self) -> None:
        while True:
            try:
                self._state, self._problem = self._read(), ""
            except AiiError as error:
                self._problem = f"{error.message} [{error.code}]"
            self._answered = time.monotonic()
            time.sleep(_EVERY_S)


def watch_in_terminal(read: Callable[[], Status]) -> None:
    """Show the status until `q` or Ctrl-C; `read` asks Redis and S3 once."""
    console = Console(highlight=False)
    screen, latest = Screen(console), _Latest(read)
    with console.screen(hide_cursor=True), _keys() as next_key:
        drawn: object = None
        while True:
            lines = screen.draw(*latest.get())
            if lines != drawn:
                _show(console, lines)
                drawn = lines
            if (key := next_key()) == "q":
                return
            screen.view.press(key, screen.page)


def _show(console: Console, lines: list[list[Segment]]) -> None:
    """Over what is there, without clearing it: nothing flickers."""
    console.control(Control.home())
    console.print(SegmentLines(lines[:-1], new_lines=True), end="")
    console.print(SegmentLines(lines[-1:], new_lines=False), end="")


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """A function that waits a moment for a key, and gives "" for none; nothing typed is shown meanwhile."""
    descriptor = sys.stdin.fileno() if is_terminal(sys.stdin) else None
    before = termios.tcgetattr(descriptor) if descriptor is not None else None

    def next_key() -> str:
        ready, _, _ = select.select([descriptor] if descriptor is not None else [], [], [], _KEY_S)
        return os.read(sys.stdin.fileno(), 16).decode(errors="replace") if ready else ""

    try:
        if descriptor is not None:
            tty.setcbreak(descriptor)
        yield next_key
    finally:
        if descriptor is not None and before is not None:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
