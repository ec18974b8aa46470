"""`aii status --watch` in a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios

import pytest

from tests.stack import AII
from tests.waiting import LIMIT_S, wait_for


class Terminal:
    """A terminal of some size, in which a command runs."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], columns: int, lines: int) -> None:
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        said = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)}
        self.process = subprocess.Popen(command, env=environment | said, stdin=other, stdout=other, stderr=other)
        os.close(other)
        self._seen = ""

    def shows(self, text: str) -> bool:
        """Whether a text was written since the beginning, or since it was last asked for one that was."""
        while select.select([self._own], [], [], 0)[0]:
            try:
                self._seen += os.read(self._own, 1 << 16).decode(errors="replace")
            except OSError:  # the command has ended
                break
        found = text in self._seen
        if found:
            self._seen = ""
        return found

    def press(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_S)
        os.close(self._own)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 60)])
def test_the_screen_obeys_its_keys_and_gives_the_terminal_back(
    columns: int, lines: int, stack_environment: dict[str, str], settings: object
) -> None:
    terminal = Terminal((*AII, "status", "--watch"), dict(os.environ) | stack_environment, columns, lines)
    try:
        wait_for(lambda: terminal.shows("No worker"), "what is wrong is not shown")
        wait_for(lambda: terminal.shows("sorts workers"), "the keys are not shown")
        terminal.press("s")
        wait_for(lambda: terminal.shows("sorts workers: images/s"), "workers are not sorted")
        terminal.press("q")
        assert terminal.process.wait(LIMIT_S) == 0
        assert terminal.shows("\x1b[?1049l")  # what was in the terminal before is there again
    finally:
        terminal.close()
