"""Files that appear whole or not at all, whatever interrupts their writing."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["PART_PREFIX", "move_into_place", "part_file", "remove_abandoned", "replacing", "write_atomically"]

# Of the names of files that are being written: a process that is killed leaves one behind.
PART_PREFIX: Final = ".part-"
_ABANDONED_S: Final = 3_600.0  # without a change: no file takes so long to write
_READABLE_BY_ALL: Final = 0o666  # less what the process's umask takes away, as for any new file


def write_atomically(path: Path, data: bytes | str, *, mode: int = _READABLE_BY_ALL) -> None:
    """Write `data` (text as UTF-8) to `path`: a reader sees the old content or all of the new one, also after a loss of
    power.

    Args:
        mode: permissions of the file, less the process's umask; those of a file that is replaced do not count.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; `path` is as it was.
    """
    with replacing(path, mode=mode) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path, *, mode: int = _READABLE_BY_ALL) -> Iterator[Path]:
    """The same for content that is written piece by piece, or by a library: yields the path to write to, which takes
    the place of `path` when the block ends. When the block raises, `path` is as it was."""
    with part_file(path.parent, mode=mode) as part:
        try:
            yield part
            move_into_place(part, path)
        except OSError as error:
            if error.errno is None or error.filename not in (None, str(part), part):
                raise
            # A full disk has no name, and the part's says nothing to a user.
            raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def part_file(folder: Path, *, mode: int = _READABLE_BY_ALL) -> Iterator[Path]:
    """A new, empty file in `folder` with a name of its own. It is deleted when the block ends, unless
    :func:`move_into_place` has given it another name."""
    # Torch refuses to write to a name that is empty without its ending.
    part = folder / f"{PART_PREFIX}{secrets.token_hex(8)}.tmp"
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except OSError as error:
        error.filename = str(folder)  # which is what the caller knows
        raise
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def move_into_place(part: Path, path: Path) -> None:
    """Rename `part`, a file in the same folder, to `path`, replacing it. Its content reaches the disk first: without
    that, a loss of power could leave an empty file under the new name."""
    _flush(part)
    try:
        part.replace(path)
    except OSError as error:  # a folder has that name, for example
        error.filename = str(path)  # which is what the caller knows
        raise
    _flush(path.parent)


def remove_abandoned(folder: Path) -> None:
    """Delete what killed processes have left half written in a folder; one that cannot be read is left as it is."""
    with suppress(OSError):
        for part in folder.glob(f"{PART_PREFIX}{'[0-9a-f]' * 16}.tmp"):
            with suppress(OSError):  # another process was faster
                if part.is_file() and time.time() - part.stat().st_mtime > _ABANDONED_S:
                    part.unlink()


def _flush(path: Path) -> None:
    """Make the system write a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
