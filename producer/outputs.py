"""Names of output files, all known before the first job: never an original, never two on one, never another file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import click

from producer.manifest import foreign_manifests, read_rows
from producer.search import Found
from tasks.command_line import printable
from tasks.errors import Conflict, DiskUnavailable
from tasks.files import remove_abandoned, write_atomically
from tasks.formats import HEAD_BYTES, format_named, format_of
from tasks.names import sha256_hex
from tasks.output_files import check_folder, check_output, refuse_existing, refuse_names

__all__ = ["Outputs", "check_report", "digest_of", "published_name", "save"]


@dataclass(frozen=True)
class Outputs:
    """Where the protected file of each image goes.

    Attributes:
        folder: of all of them, and of their manifest.
        names: of the images in their order, below `folder`.
        force: whether a file that is there already may be replaced.
    """

    folder: Path
    names: Sequence[Path]
    force: bool = False
    _saved: dict[tuple[int, int], tuple[int, Path]] = field(default_factory=dict)  # by the system's number of a file

    @classmethod
    def planned(cls, found: Sequence[Found], folder: Path, *, force: bool, lossless: bool = False) -> Outputs:
        """Work out all names, and check them. With `lossless`, a JPEG becomes a PNG. What killed commands have left
        half-written in the same folders is deleted.

        Raises:
            UsageError: a name is that of an original, of two images, of a folder, or of a file that is there already.
        """
        plan = cls(folder, [_name_of(image, lossless) for image in found], force)
        check_folder(folder)
        refuse_names(
            _onto_originals(plan, found), "would be written onto an original", "Choose another folder for --out."
        )
        plan.refuse_clashes([image.name for image in found])
        folders = [str(path) for name in plan.names if (path := folder / name).is_dir()]
        refuse_names(folders, "is a folder, where a protected file would be", "Choose another folder for --out.")
        if not force:
            refuse_existing(_taken(plan, found))
        for parent in {(folder / name).parent for name in plan.names}:
            remove_abandoned(parent)
        return plan

    def refuse_clashes(self, sources: Sequence[str]) -> None:
        """Raise UsageError when two images have one name."""
        first: dict[Path, str] = {}
        hits = []
        for source, name in zip(sources, self.names, strict=True):
            if name in first:
                hits.append(f"{name} (of {first[name]} and {source})")
            first.setdefault(name, source)
        remedy = "Give them different folders for --out, or name the folders that they lie in: those are kept."
        refuse_names(hits, "is the name of two protected files", remedy)

    def path_of(self, order: int, suffix: str) -> Path:
        """Of the protected file of the image at place `order`; see :meth:`save`."""
        return self.folder / published_name(self.names[order], suffix)

    def save(self, order: int, data: bytes, suffix: str) -> Path:
        """Write the protected file of the image at place `order`; returns its path.

        Args:
            suffix: that of the published object. Another than planned is appended.

        Raises:
            Conflict: another file has the name by now, and `force` is not set; or it is another image's of this run, as
                the folder takes both names for one (`A.jpg` and `a.jpg` on some disks, a linked folder).
            DiskUnavailable: it cannot be written.
        """
        path = self.path_of(order, suffix)
        earlier, saved = self._saved.get(_number(path), (order, path))
        if earlier != order and _same_file(saved, path):
            raise Conflict(f"{path} is the protected file of another of these images by another name.")
        save(path, data, force=self.force)
        self._saved[_number(path)] = order, path
        return path


def save(path: Path, data: bytes, *, force: bool) -> Path:
    """Write a file atomically, never over one of other content unless `force`; errors as in :meth:`Outputs.save`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.is_file() and path.read_bytes() == data:
                return path
            if not force:
                raise Conflict(f"{path} exists already, with other content: --force replaces it.")
        write_atomically(path, data)
    except OSError as error:
        raise DiskUnavailable(f"{error.filename or path} cannot be written: {error.strerror or error}.") from error
    return path


def _number(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file now. Both are open meanwhile: the number of a file that another process has
    replaced goes to the next new file."""
    try:
        with path.open("rb") as one, other.open("rb") as two:
            return os.path.sameopenfile(one.fileno(), two.fileno())
    except OSError:
        return False


def check_report(path: Path | None, found: Iterable[Found], *, force: bool) -> None:
    """Refuse a report's file that is one of the images, exists already, or cannot be written; raises UsageError."""
    if path is None:
        return
    if _identity(path) & _identities(found).keys():
        raise click.UsageError(f"{path} is one of the images: choose another name for the report.")
    check_output(path, force=force)


def published_name(name: PurePath, suffix: str) -> Path:
    """A file's own name, if its suffix fits a published file's `suffix` (``.jpeg``, ``.JPG`` and ``.jfif`` fit
    ``.jpg``); else with that suffix appended, so that ``a.tif`` and ``a.png`` stay two."""
    own, published = format_named(name.suffix), format_named(suffix)
    if (own and own == published) or name.suffix.lower() == suffix:
        return Path(name)
    return Path(name.with_name(f"{name.name}{suffix}"))


def _name_of(image: Found, lossless: bool) -> Path:
    kind = format_of(_head(image.source)) or format_named(image.relative.suffix)
    if kind is None:
        return image.relative
    return published_name(image.relative, ".png" if lossless and kind.published == ".jpg" else kind.published)


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD_BYTES]
    try:
        if not source.is_file():  # reading a pipe would take its bytes away
            return b""
        with source.open("rb") as file:
            return file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return b""


def _onto_originals(plan: Outputs, found: Sequence[Found]) -> list[str]:
    originals = _identities(found)
    hits = []
    for name in plan.names:
        for identity in _identity(plan.folder / name) & originals.keys():
            hits.append(f"{plan.folder / name} ({originals[identity]})")
            break
    return hits


def _identities(found: Iterable[Found]) -> dict[object, str]:
    return {key: one.name for one in found if isinstance(one.source, Path) for key in _identity(one.source)}


def _identity(path: Path) -> set[object]:
    """What tells that two paths are one file: the path without links, and the file's number."""
    try:
        known: set[object] = {path.resolve()}
        status = path.stat()
    except FileNotFoundError:
        return known
    except (OSError, ValueError, RuntimeError):
        return {path}
    return known | {(status.st_dev, status.st_ino)}


def _taken(plan: Outputs, found: Sequence[Found]) -> list[Path]:
    """Files that exist, and are not an earlier run's output of the same image."""
    earlier = {row.protected_file: row.source_sha256 for row in read_rows(plan.folder)}
    hits = []
    for image, name in zip(found, plan.names, strict=True):
        path, row = plan.folder / name, printable(name.as_posix())
        if path.exists() and (row not in earlier or earlier[row] != digest_of(image.source)):
            hits.append(path)
    return [*hits, *foreign_manifests(plan.folder)]


def digest_of(source: Path | bytes) -> str:
    """The sha256 of an image; "" of a file that cannot be read."""
    if isinstance(source, bytes):
        return sha256_hex(source)
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""
