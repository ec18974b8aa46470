"""A folder on the local disk for the files of a generation that is being written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import DiskUnavailable
from workers.index.collection.files import CollectionStore

__all__ = ["workspace"]


@contextmanager
def workspace(files: CollectionStore) -> Iterator[Path]:
    """An empty folder for the holder of the collection's lock; see :mod:`workers.index.collection.lock`.

    It is deleted at the end, and so is what earlier writers left: they died, or lost the lock and must not publish.

    Raises:
        DiskUnavailable: the disk is full, or not writable.
    """
    parent = files.workspace
    try:
        shutil.rmtree(parent, ignore_errors=True)
        parent.mkdir(parents=True)
        yield Path(tempfile.mkdtemp(dir=parent))
    except (OSError, RuntimeError) as error:  # FAISS reports a full disk as a RuntimeError
        raise DiskUnavailable(f"{parent} cannot take a segment's files ({error}): free some space.") from error
    finally:
        shutil.rmtree(parent, ignore_errors=True)
