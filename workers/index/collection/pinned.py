"""The current manifest, pinned: its digest is noted in Redis before the store's pointer names it.

Files are checked against the digests of their manifest, and the manifest against the digest in the pointer. Both are
objects of one bucket, so who can write there alone could replace them together; not what Redis notes. Where nothing is
noted, as of a collection of version 0.1.0 or in a Redis that was emptied, the store is believed; the next generation
notes both its own manifest and the one before it.
"""

from __future__ import annotations

from contextlib import suppress

from tasks.errors import CorruptSegment
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.manifest import Manifest, Pointer

__all__ = ["current_generation", "current_is_damaged", "current_manifest", "newest_whole", "pin_current", "publish"]


def current_generation(files: CollectionStore, journal: Journal) -> tuple[Pointer, Manifest]:
    """What names the current generation, as it was published, and its manifest.

    Raises:
        CollectionMissing: nothing is published under this name.
        CorruptSegment: the manifest is damaged, or not the one that was noted.
    """
    pointer = files.pointer()
    noted = journal.noted_manifests()
    if noted and noted.get(pointer.generation) != pointer.sha256:
        raise CorruptSegment(
            f"The manifest of generation {pointer.generation} is not one that was published through Redis. If a backup "
            "of Redis was restored, or a worker of version 0.1.0 wrote it, run `aii index repair`; else someone has "
            "replaced it in the store."
        )
    return pointer, files.read(pointer)


def current_manifest(files: CollectionStore, journal: Journal) -> Manifest:
    """The manifest of the current generation; errors as of :func:`current_generation`."""
    return current_generation(files, journal)[1]


def current_is_damaged(files: CollectionStore) -> bool:
    """Whether what names the current manifest, or that itself, cannot be read; raises CollectionMissing."""
    try:
        files.current()
    except CorruptSegment:
        return True
    return False


def newest_whole(files: CollectionStore, journal: Journal) -> Manifest:
    """The newest kept manifest that can be read and, where Redis notes any, is noted. It may be older than what was
    current: only an operator may decide to go on from it.

    Raises:
        CorruptSegment: there is none.
    """
    noted = journal.noted_manifests()
    for pointer in reversed(files.listed()):
        if not noted or noted.get(pointer.generation) == pointer.sha256:
            with suppress(CorruptSegment):
                return files.read(pointer)
    raise CorruptSegment(
        f"No kept generation of {files.name!r} can be read: delete it with `aii index delete {files.name}`, then "
        "import it from an export, or build it again."
    )


def publish(files: CollectionStore, journal: Journal, manifest: Manifest) -> None:
    """Note a manifest, then make it current."""
    journal.note_manifest(files.pointer_to(manifest), files.pointer_if_any())
    files.publish(manifest)


def pin_current(files: CollectionStore, journal: Journal) -> Manifest:
    """Believe the store, and note what it says: an operator's decision."""
    pointer = files.pointer()
    journal.forget_manifests()
    journal.note_manifest(pointer, None)
    return files.read(pointer)
