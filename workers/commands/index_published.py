"""What the result documents in S3 say of a collection, for commands of ``aii index``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.command_line import progress_bar
from workers.index.collection.opened import Opened

if TYPE_CHECKING:
    from workers.index.collection.manifest import Manifest
    from workers.index.maintenance.activations import Activations

__all__ = ["published"]


@contextmanager
def published(opened: Opened, manifest: Manifest, purpose: str) -> Iterator[Activations]:
    """The assets' activations. What an earlier call for the same `purpose` has read is not read again."""
    from workers.index.codec.codec import Codec  # noqa: PLC0415
    from workers.index.collection.translation import Translation  # noqa: PLC0415
    from workers.index.maintenance.activations import activations_of  # noqa: PLC0415
    from workers.index.maintenance.documents import belonging  # noqa: PLC0415

    codec = Codec.read(opened.files.fetch(manifest.codec), manifest.factory)
    belongs = belonging(manifest, Translation(opened.files, manifest, codec))
    with activations_of(opened.files, manifest, purpose) as activations:
        with progress_bar("result documents") as progress:
            activations.read(opened.store, opened.files.removals, belongs, progress)
        yield activations
