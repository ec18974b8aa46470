"""Images before the upload: read, and checked as far as that is cheap. The worker checks the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from tasks.errors import EmptyImage, InvalidRequest, NotFound, TooLarge
from tasks.formats import format_of
from tasks.messages import S3Object, validated

if TYPE_CHECKING:
    from producer.requests import Content

__all__ = ["object_named", "read_image"]

_S3: Final = "s3://"


def object_named(image: object) -> S3Object | None:
    """The object that ``s3://BUCKET/KEY`` names; None for anything else. Raises InvalidRequest, InvalidKey."""
    if not isinstance(image, str) or not image.startswith(_S3):
        return None
    bucket, _, key = image.removeprefix(_S3).partition("/")
    return validated(S3Object, {"bucket": bucket, "key": key})


def read_image(image: Content, max_bytes: int) -> tuple[bytes, str]:
    """The bytes and the MIME type of an image that is not in S3.

    Raises:
        NotFound: there is no such file, or it cannot be read.
        EmptyImage, TooLarge, InvalidRequest: see the codes.
    """
    data = _bytes_of(image, max_bytes)
    if not data:
        raise EmptyImage("The file is empty: was its transfer cut off?")
    if len(data) > max_bytes:
        raise TooLarge(f"More than the limit of {max_bytes:,} bytes: raise AII_MAX_IMAGE_BYTES on both sides.")
    return data, _content_type(data)


def _bytes_of(image: Content, max_bytes: int) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return memoryview(image).tobytes()
    if isinstance(image, str | os.PathLike):
        return _read_path(Path(image), max_bytes)
    if callable(getattr(image, "read", None)):
        return _read_file(image, max_bytes)
    raise InvalidRequest(f"{type(image).__name__} is no image: give bytes, a path, an open file or s3://BUCKET/KEY.")


def _read_path(path: Path, max_bytes: int) -> bytes:
    """At most one byte more than allowed: a device or a pipe has no size, and may never end."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise NotFound(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _read_file(file: BinaryIO, max_bytes: int) -> bytes:
    """The rest of an open file; a pipe gives it in pieces."""
    pieces, left = [], max_bytes + 1
    try:
        while left > 0 and (piece := file.read(left)):
            if not isinstance(piece, bytes):
                raise InvalidRequest("The file gives text: open it with the mode 'rb'.")
            pieces.append(piece)
            left -= len(piece)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise NotFound(f"The file cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return b"".join(pieces)


def _content_type(data: bytes) -> str:
    """MIME type for the object store. Only the worker decides whether the bytes are an image that can be used."""
    known = format_of(data)
    return known.content_type if known else "application/octet-stream"
