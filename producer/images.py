"""Images before the upload: read, and checked as far as that is cheap. The worker checks the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tasks.errors import EmptyImage, NotFound, TooLarge
from tasks.formats import format_of
from tasks.messages import S3Object, validated

__all__ = ["object_named", "read_image"]

_S3: Final = "s3://"


def object_named(text: str) -> S3Object | None:
    """The object that ``s3://BUCKET/KEY`` names; None for other text. Raises InvalidRequest, InvalidKey."""
    if not text.startswith(_S3):
        return None
    bucket, _, key = text.removeprefix(_S3).partition("/")
    return validated(S3Object, {"bucket": bucket, "key": key})


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
        raise TooLarge(f"More than the limit of {max_bytes:,} bytes: raise AII_MAX_IMAGE_BYTES on both sides.")
    return data, _content_type(data)


def _read_file(path: Path, max_bytes: int) -> bytes:
    """At most one byte more than allowed: a device or a pipe has no size, and may never end."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise NotFound(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _content_type(data: bytes) -> str:
    """MIME type for the object store. Only the worker decides whether the bytes are an image that can be used."""
    known = format_of(data)
    return known.content_type if known else "application/octet-stream"
