"""Standard input and terminals, for commands whose streams may be closed (``<&-``): Python has None for such a one."""

from __future__ import annotations

import sys
from typing import TextIO

import click

from tasks.errors import NotFound

__all__ = ["confirm", "is_terminal", "read_stdin"]


def read_stdin() -> bytes:
    """All that standard input holds.

    Raises:
        NotFound: it is closed, or cannot be read.
    """
    if sys.stdin is None:
        raise NotFound("Standard input is closed: name a file, or pipe something in.")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise NotFound(f"Standard input cannot be read: {error.strerror or error}.") from error


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def confirm(question: str) -> None:
    """Ask, and end the command unless the answer is yes.

    Raises:
        UsageError: no answer can come, as standard input is closed.
    """
    if sys.stdin is None:
        raise click.UsageError("Standard input is closed, so this cannot be confirmed: say --yes.")
    click.confirm(question, abort=True)
