"""Images before the upload: found, read, and checked as far as that is cheap. The worker checks the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.errors import EmptyImage, NotFound, TooLarge

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif"})


def read_image(image: bytes | str | Path, max_bytes: int) -> tuple[bytes, str]:
    """The bytes and the MIME type of an image given as bytes or as a path.

    Raises:
        NotFound: there is no such file, or it cannot be read.
        EmptyImage, TooLarge: see the codes.
    """
    data = image if isinstance(image, bytes) else _read_file(Path(image), max_bytes)
    if not data:
        raise EmptyImage("The file is empty: was its transfer cut off?")
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes)
    return data, _content_type(data)


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise _too_large(size, max_bytes)
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror or error}.") from error


def _too_large(size: int, max_bytes: int) -> TooLarge:
    return TooLarge(
        f"{size:,} bytes are more than the limit of {max_bytes:,}: raise AII_MAX_IMAGE_BYTES on both sides."
    )


_SIGNATURES: Final = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png", b"RIFF": "image/webp"}


def _content_type(data: bytes) -> str:
    """MIME type for the object store. Only the worker decides whether the bytes are an image that can be used."""
    return next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), "application/octet-stream")


@dataclass(frozen=True)
class Found:
    """An image named on the command line; `relative` is where its protected copy goes below an output folder."""

    name: str
    relative: Path
    source: Path | bytes


def find_images(arguments: Iterable[str], standard_input: bytes | None) -> Iterator[Found]:
    """The images that arguments name: files as they are, folders with all below them by suffix, ``-`` for the bytes
    of one image on standard input. Files that do not exist are passed on: reading them says so."""
    for argument in arguments:
        if argument == "-":
            yield Found("-", Path("stdin"), standard_input or b"")
        elif (folder := Path(argument)).is_dir():
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    yield Found(str(path), path.relative_to(folder), path)
        else:
            yield Found(argument, Path(Path(argument).name), Path(argument))
