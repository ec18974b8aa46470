"""Files that commands write for their users: none takes the place of another without being told to, and all are checked
before work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import click

from tasks.files import write_atomically

__all__ = ["check_folder", "check_output", "force_option", "refuse_existing", "refuse_names", "write_output"]

_SHOWN: Final = 5

force_option = click.option("--force", is_flag=True, help="Replace files that exist already.")


def check_output(path: Path | None, *, force: bool) -> None:
    """Check the file that an option or an argument names; None is an option that was not given.

    Raises:
        UsageError: it exists already, and `force` is not set; it is a folder, a device or a pipe; or its folder cannot
            be written, or made.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise click.UsageError(f"{path} is no file that could be written: choose another name.")
    if not force:
        refuse_existing([path])
    check_folder(path.parent)


def write_output(path: Path, text: str) -> None:
    """Write the file, as UTF-8, and the folders that it lies in; it appears whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise UsageError for files that are there already, and say what replaces them."""
    refuse_names([str(path) for path in paths if path.exists()], "exists already", "--force replaces it.")


def check_folder(folder: Path) -> None:
    """Raise UsageError for a folder that cannot be written, or made: a link to what is not there can be neither."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise click.UsageError(f"{folder} cannot be written: {there} is no folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise click.UsageError(f"{folder} cannot be written: no permission for {there}.")


def refuse_names(names: Sequence[str], what: str, remedy: str) -> None:
    """Raise UsageError that names the first of these, unless there is none."""
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise click.UsageError(f"{', '.join(names[:_SHOWN])}{more}: {what}. {remedy}")
