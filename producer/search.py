"""The search for images: files are recognised by their content, and whatever is not taken is named with its reason."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from producer.manifest import ProtectedFiles
from tasks.formats import FORMATS, HEAD_BYTES, format_of, kind_of

__all__ = ["PROTECTED", "Found", "Search", "Skipped", "Unread", "find_images", "summary"]

PROTECTED: Final = "protected file"
_HIDDEN: Final = "hidden"
_NAMED_TWICE: Final = "named twice"
_SUFFIXES: Final = frozenset(suffix for kind in FORMATS for suffix in kind.suffixes)


@dataclass(frozen=True, slots=True)
class Found:
    """An image named on the command line. Texts only, as there may be millions: paths are made when they are asked for.

    Args:
        name: its path, unless there are `data`.
        below: its path below the folder that was named.
        data: its bytes, where they came by standard input.
    """

    name: str
    below: str
    data: bytes | None = None

    @property
    def relative(self) -> Path:
        return Path(self.below)

    @property
    def source(self) -> Path | bytes:
        return Path(self.name) if self.data is None else self.data


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out; `reason` is a word such as ``HEIC``, ``text`` or ``hidden``, and `message` a
    sentence where there is more to say."""

    name: str
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Unread:
    """A file or folder that should have been read, and could not be; `reason` is the system's."""

    name: str
    reason: str
    is_folder: bool


@dataclass
class Search:
    """What was found, in order; what was left out; and what could not be read, which counts as a failure."""

    found: list[Found] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


def find_images(
    arguments: Iterable[str],
    standard_input: bytes | None = None,
    *,
    excluded: Mapping[Path, str] | None = None,
    without_protected: bool = False,
) -> Search:
    """The images that arguments name: files as they are, folders with all below them, ``-`` for the bytes of one image
    on standard input. Files that do not exist are passed on: reading them says so.

    Args:
        excluded: folders below which nothing is taken, with the reason, such as the folder of results.
        without_protected: leave out the files that an earlier activation wrote.
    """
    given = list(arguments)
    walk = _Walk({path.resolve(): why for path, why in (excluded or {}).items()})
    for argument in given:
        if argument == "-":
            walk.take_standard_input(standard_input or b"")
        elif _is_folder(folder := Path(argument)):
            _find_below(walk, folder, prefix=Path(folder.resolve().name) if len(given) > 1 else Path())
        else:
            walk.take(Found(argument, folder.name))
    if without_protected:
        _set_aside(walk.search, ProtectedFiles.known_near(given, [*walk.folders, *walk.excluded]))
    return walk.search


def summary(search: Search) -> str:
    """``12 skipped: 10 HEIC, 1 text, 1 hidden; 1 folder cannot be read``; empty where everything was read."""
    parts = []
    if search.skipped:
        counts = Counter(skipped.reason for skipped in search.skipped).most_common()
        parts.append(f"{len(search.skipped)} skipped: {', '.join(f'{n} {reason}' for reason, n in counts)}")
    for noun, is_folder in (("folder", True), ("file", False)):
        if count := sum(1 for unread in search.unread if unread.is_folder is is_folder):
            parts.append(f"{count} {noun}{'s' if count > 1 else ''} cannot be read")
    return "; ".join(parts)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no permission, a name that is too long; a NUL in it
        return False


def _find_below(walk: _Walk, folder: Path, prefix: Path) -> None:
    for path in walk.files(folder):
        walk.consider(path, prefix / path.relative_to(folder))


class _Walk:
    """One search through folders. A folder that several links lead to is read once, so cycles end."""

    def __init__(self, excluded: dict[Path, str]) -> None:
        self.search = Search()
        self.folders: list[Path] = []
        self.excluded = excluded
        self._seen: set[tuple[int, int]] = set()
        self._taken: set[str] = set()

    def files(self, folder: Path) -> Iterator[Path]:
        """All below a folder, names in order; linked folders are followed, and none is too deep."""
        levels = [self._entries(folder)]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
            elif entry.name.startswith("."):
                self._skip(Path(entry.path), _HIDDEN)
            elif _is_dir(entry):
                levels.append(self._entries(Path(entry.path)))
            else:
                yield Path(entry.path)

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        if not self._enter(folder):
            return iter(())
        try:
            return iter(sorted(os.scandir(folder), key=lambda entry: entry.name))
        except OSError as error:
            self._unreadable(folder, error, is_folder=True)
            return iter(())

    def _enter(self, folder: Path) -> bool:
        try:
            status = folder.stat()
        except OSError as error:
            self._unreadable(folder, error, is_folder=True)
            return False
        if reason := self.excluded.get(folder.resolve()):
            self._skip(folder, reason)
            return False
        new = (status.st_dev, status.st_ino) not in self._seen
        self._seen.add((status.st_dev, status.st_ino))
        if new:
            self.folders.append(folder)
        else:
            self._skip(folder, "folder that was read already")
        return new

    def consider(self, path: Path, relative: Path) -> None:
        """Take a file that is an image that workers read, by its content or by its name."""
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                self._skip(path, "no regular file")
                return
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
        except OSError as error:
            if path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
                self._skip(path, "dead link")
            else:
                self._unreadable(path, error, is_folder=False)
        else:
            # A damaged image is still meant as one: its failure names what is wrong with it.
            if format_of(head) or path.suffix.lower() in _SUFFIXES:
                self.take(Found(str(path), str(relative)))
            else:
                self._skip(path, kind_of(head))

    def take(self, found: Found) -> None:
        """Keep an image, unless the very same path has been named before."""
        place = str(Path(found.name).absolute())
        if place in self._taken:
            self._skip(Path(found.name), _NAMED_TWICE)
        else:
            self._taken.add(place)
            self.search.found.append(found)

    def take_standard_input(self, data: bytes) -> None:
        if any(found.name == "-" for found in self.search.found):
            self._skip(Path("-"), _NAMED_TWICE)
        else:
            self.search.found.append(Found("-", "stdin", data))

    def _skip(self, path: Path, reason: str) -> None:
        self.search.skipped.append(Skipped(str(path), reason))

    def _unreadable(self, path: Path, error: OSError, *, is_folder: bool) -> None:
        self.search.unread.append(Unread(str(path), error.strerror or str(error), is_folder))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _set_aside(search: Search, protected: ProtectedFiles) -> None:
    """Move what an earlier activation wrote from the found to the skipped."""
    kept = []
    for found in search.found:
        if isinstance(found.source, Path) and found.source in protected:
            search.skipped.append(Skipped(found.name, PROTECTED))
        else:
            kept.append(found)
    search.found = kept
