"""Downloads what a shard has of a segment's inverted lists, and no more: a range of the object's bytes."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import DigestMismatch
from tasks.files import replacing
from tasks.storage import READINGS, Bucket, ObjectStore
from workers.index.codec.list_blocks import Layout, Part, header_bytes

__all__ = ["download_part"]


def download_part(store: ObjectStore, key: str, part: Part, path: Path) -> Path:
    """Write a part of an object to `path`, which appears only when it is whole and the digests of its blocks are right.

    Raises:
        ObjectMissing: there is no such object.
        DigestMismatch: it is damaged, there or in its header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, mode=0o600) as half:
        if not any(_download(store, key, part, half) for _ in range(READINGS)):
            cells = f"{part.cells.start} to {part.cells.stop - 1}"
            raise DigestMismatch(f"{key} is damaged: its lists of the cells {cells} do not have their digests.")
    return path


def _download(store: ObjectStore, key: str, part: Part, path: Path) -> bool:
    """Write a part to a file; returns whether its digests are right."""
    size = store.size(Bucket.COLLECTIONS, key)
    most = min(size, header_bytes(part.of))
    head = b"".join(store.stream_range(Bucket.COLLECTIONS, key, 0, most)) if most else b""
    try:
        layout = Layout.read(head, part.of, size)
    except ValueError:
        return False
    start, end = layout.span(part.cells)
    part.write(path, layout, store.stream_range(Bucket.COLLECTIONS, key, start, end) if start < end else ())
    with path.open("rb") as file:
        return part.is_in(file)
