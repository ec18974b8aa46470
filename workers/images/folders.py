"""Image files in folders and tar files, found first and read one by one."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.errors import BadInput, InvalidRequest
from tasks.formats import FORMATS

__all__ = ["ImageFile", "image_files", "listed_images", "listing_digest"]

_SUFFIXES: Final = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)


@dataclass(frozen=True)
class ImageFile:
    """One file that is named like an image: the bytes `offset` to `offset + size` of the file at `path`.

    Attributes:
        name: below its folder, or in its tar file; bytes that are no UTF-8 are spelled out, so that it can be printed.
    """

    name: str
    path: Path
    offset: int
    size: int

    @classmethod
    def at(cls, path: Path, name: str) -> ImageFile:
        """A whole file."""
        return cls(_printable(name), path, 0, path.stat().st_size)

    def read(self) -> bytes:
        """Raises BadInput when the system does not let us."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise BadInput(f"The file cannot be read: {error.strerror}.") from error


def listed_images(path: Path) -> Iterator[ImageFile]:
    """The files in a folder (with all below it) or a tar file that are named like images, in the order of their names;
    or one such file itself. Nothing is read of them.

    Raises:
        InvalidRequest: `path` is none of these, or cannot be opened.
    """
    if path.is_dir():
        return _in_folder(path)
    if path.name.lower().endswith(_SUFFIXES):
        return iter([ImageFile.at(path, path.name)])
    return _in_tar(path)


def image_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """``(name, bytes)`` of the same, in the same order.

    Raises:
        InvalidRequest: as above.
        BadInput: a file cannot be read.
    """
    for file in listed_images(path):
        yield file.name, file.read()


def listing_digest(paths: Iterable[Path]) -> tuple[str, int]:
    """A digest over the names and sizes of all such files, which tells two sets of images apart without reading them;
    and how many there are."""
    digest, count = hashlib.sha256(), 0
    for path in paths:
        for file in listed_images(path):
            digest.update(f"{file.name}\0{file.size}\n".encode())
            count += 1
    return digest.hexdigest(), count


def _in_folder(folder: Path) -> Iterator[ImageFile]:
    for file in sorted(folder.rglob("*")):
        if file.name.lower().endswith(_SUFFIXES) and file.is_file():
            yield ImageFile.at(file, str(file.relative_to(folder)))


def _in_tar(path: Path) -> Iterator[ImageFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = sorted((m.name, m.offset_data, m.size) for m in tar if m.isreg())
    except (tarfile.ReadError, OSError) as error:
        raise InvalidRequest(
            f"{path} is neither an image file, nor a folder, nor a tar file that can be read ({error}). "
            "A compressed tar file has to be unpacked: its images could not be read one by one."
        ) from error
    for name, offset, size in members:
        if name.lower().endswith(_SUFFIXES):
            yield ImageFile(_printable(name), path, offset, size)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
