"""What all commands of ``aii`` share: exit codes, how errors and texts are shown, paths, commands loaded on demand, the
progress bar.

Imports click only, because it runs before every command, and for ``--help`` and shell completion.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TextIO

import click

from tasks.errors import AiiError, DiskUnavailable, InvalidSetting, NotFound, Unavailable
from tasks.streams import is_terminal

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_UNAVAILABLE",
    "EXIT_USAGE",
    "Advance",
    "Command",
    "FilePath",
    "FiniteRange",
    "Group",
    "Lazy",
    "LazyGroup",
    "PathText",
    "echo",
    "echo_all",
    "exit_code",
    "exit_on_error",
    "one_line",
    "printable",
    "progress_bar",
]

# 0 is success; click itself ends with 2 on wrong usage, and shells report 130 for Ctrl-C.
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 3
EXIT_INTERRUPTED: Final = 130

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BREAKS: Final = re.compile(r"[\t\n\u2028\u2029]")


def exit_code(error: AiiError) -> int:
    """The exit code of a command that ends with this error."""
    if isinstance(error, Unavailable):
        return EXIT_UNAVAILABLE
    return EXIT_USAGE if isinstance(error, InvalidSetting) else EXIT_FAILED


@contextmanager
def exit_on_error(program: str) -> Iterator[None]:
    """End the process with one line on standard error and the right exit code, instead of a traceback.

    Args:
        program: what the line begins with, such as ``aii worker``.
    """
    tolerate_terminals()
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise  # click reports these itself
    except KeyboardInterrupt:
        _exit(program, "interrupted.", EXIT_INTERRUPTED)
    except BrokenPipeError:
        _discard(sys.stdout)
        sys.exit(EXIT_FAILED)  # what the reader has not taken, it did not want
    except AiiError as error:
        _exit(program, f"{error.message} [{error.code}]", exit_code(error))
    except OSError as error:
        if not error.filename:
            _discard(sys.stdout)  # what a full disk did not take would fail again when Python ends
        problem = _problem_of_file(error)
        _exit(program, f"{problem.message} [{problem.code}]", exit_code(problem))
    except Exception as error:
        if os.environ.get("AII_TRACEBACK"):
            traceback.print_exc()
        hint = "This is a bug; set AII_TRACEBACK=1 and run the command again to see where it happened."
        _exit(program, f"unexpected {type(error).__name__}: {error}. {hint}", EXIT_FAILED)


def _problem_of_file(error: OSError) -> AiiError:
    """What is the matter with a file that a user named, or with standard output."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    kind = NotFound if missing else DiskUnavailable
    return kind(f"{error.filename or 'A file or standard output'}: {error.strerror or error}")


def _exit(program: str, text: str, code: int) -> None:
    with suppress(OSError):  # the exit code says it all the same
        echo(f"{program}: {text}", err=True)
    sys.exit(code)


def tolerate_terminals() -> None:
    """Let messages through to a terminal of any encoding: what it cannot show is spelled out."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(text: str, *, err: bool = False) -> None:
    """Print text, without what could command a terminal: names of files and of assets come from others. A reader that
    has closed its end, as ``head`` does, ends the printing and not the command."""
    with _printing(err=err):
        click.echo(_CONTROLS.sub(_spelled_out, text), err=err)


def echo_all(lines: Iterable[str]) -> None:
    """Print lines until they end, or until their reader has closed its end: no more are made then."""
    with _printing(err=False):
        for line in lines:
            click.echo(_CONTROLS.sub(_spelled_out, line))


@contextmanager
def _printing(*, err: bool) -> Iterator[None]:
    """End in peace where the reader has gone; name the stream in the error of a full disk."""
    stream = sys.stderr if err else sys.stdout
    try:
        yield
    except BrokenPipeError:
        _discard(stream)
    except OSError as error:
        if not error.filename:
            error.filename = "standard error" if err else "standard output"
            _discard(stream)
        raise


def _discard(stream: TextIO | None) -> None:
    """Send what is still printed nowhere. The buffer holds a rest that could not be written; it is flushed at exit."""
    if stream is None:  # it was closed from the beginning
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):  # not a file of the system: in a test, for example
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def one_line(name: str) -> str:
    """A file's name within a line: line breaks and the like are spelled out as well."""
    return _BREAKS.sub(_spelled_out, _CONTROLS.sub(_spelled_out, printable(name)))


def _spelled_out(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def printable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()


class FiniteRange(click.FloatRange):
    """A range of numbers, without infinity and what is no number, which click compares with nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class FilePath(click.Path):
    """A file or folder on the command line, as :class:`pathlib.Path`. An empty one is wrong usage: it would be the
    working folder, which is never what a script with an unset variable means."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(path_type=Path, **kwargs)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = os.fspath(value)
        if not text.strip():
            self.fail("the path is empty; name the working folder '.'.", param, ctx)
        if "\0" in text:
            self.fail("a path cannot contain the character NUL.", param, ctx)
        return super().convert(value, param, ctx)


class PathText(FilePath):
    """The same as text, for an argument that can be something else as well, such as ``-``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        super().convert(value, param, ctx)
        return value


class Command(click.Command):
    """A command whose errors end the process with their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        with exit_on_error(_path(ctx)):
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        with exit_on_error(_path(ctx)):
            return super().invoke(ctx)


def _path(ctx: click.Context) -> str:
    """``aii index build``, however the program was started: it may run as ``python -m`` too."""
    names = [ctx.command.name or ""]
    while ctx.parent:
        ctx = ctx.parent
        names.insert(0, ctx.command.name or "")
    return " ".join(names if names[0] == "aii" else ["aii", *names])


class Lazy(NamedTuple):
    """A command that is not imported yet: ``module:attribute``, and the line that its group's help shows."""

    target: str
    summary: str


class _Stub(click.Command):
    """A command's name and summary, which is all that help and completion need."""

    def __init__(self, name: str, summary: str) -> None:
        super().__init__(name, short_help=summary)


class LazyGroup(Group):
    """A group that imports a command only when that command is run, completed or asked for its own help."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def lazy(self) -> Mapping[str, Lazy]:
        return self._lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if known := self.lazy().get(cmd_name):
            return _Stub(cmd_name, known.summary)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.load(command.name or "") if isinstance(command, _Stub) else command, rest

    def load(self, name: str) -> click.Command:
        """Import a command."""
        module, _, attribute = self.lazy()[name].target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


class Advance(Protocol):
    """Reports how much is done so far, and optionally the total, if it is known only now."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


@contextmanager
def progress_bar(label: str, total: int | None = None, *, hidden: bool = False) -> Iterator[Advance]:
    """A bar on standard error, if that is a terminal; without a total, which may also follow later, it only counts."""
    if hidden or not is_terminal(sys.stderr):
        yield lambda done, total=None: None
        return
    with click.progressbar(length=total or 0, label=label, file=sys.stderr, show_pos=True) as bar:
        bar.length = total  # click's own argument cannot say "unknown"

        def advance(done: int, total: int | None = None) -> None:
            bar.length = total or bar.length
            bar.update(done - bar.pos)

        yield advance
