"""Room on the local disk for the files of a generation that is being written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import DiskUnavailable
from workers.index.collection.manifest import CollectionStore

__all__ = ["room"]


@contextmanager
def room(files: CollectionStore) -> Iterator[Path]:
    """An empty folder of its own for whoever holds the right to write; see :mod:`workers.index.collection.lock`.

    What others left there goes: they died, or lost that right and must not publish.

    Raises:
        DiskUnavailable: there is no room.
    """
    parent = files.workspace
    try:
        shutil.rmtree(parent, ignore_errors=True)
        parent.mkdir(parents=True)
        yield Path(tempfile.mkdtemp(dir=parent))
    except (OSError, RuntimeError) as error:  # FAISS says with a RuntimeError that there was no room
        raise DiskUnavailable(f"{parent} cannot take a segment's files ({error}): make room.") from error
    finally:
        shutil.rmtree(parent, ignore_errors=True)
