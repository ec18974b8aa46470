"""Asset records for collections of version 0.1.0, which had none: made from the result documents by the first write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from tasks.assets.protected_digests import ProtectedDigests
from tasks.assets.records import AssetRecord
from tasks.bounded_map import bounded_map
from tasks.connection import RedisClient
from tasks.errors import CollectionBusy, NotReady
from tasks.ledger.outdated import mark_outdated
from tasks.results import ActivationResult
from tasks.storage import ObjectStore
from workers.index.codec.codec import Codec
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import entry_order
from workers.index.collection.lock import write_lock
from workers.index.collection.manifest import Manifest
from workers.index.collection.open_collections import OpenCollections
from workers.index.collection.opened import Opened
from workers.index.collection.translation import Translation
from workers.index.maintenance.activations import OnRecord, activations_of
from workers.index.maintenance.documents import belonging

__all__ = ["record_for_command", "record_old_assets"]

logger = logging.getLogger(__name__)

_WRITERS: Final = 16


def record_old_assets(collections: OpenCollections, name: str) -> None:
    """See to it that every asset of a collection has a record. Done once for a collection; any later call is cheap.

    Raises:
        NotReady: another worker is just doing that.
    """
    collection = collections.get(name)
    if collection.all_recorded():
        return
    try:
        with write_lock(collections.client, name, "recording"):
            if not collection.all_recorded():
                manifest, codec = collection.pinned
                _record(collections.store, collections.client, collections.files(name), manifest, codec)
    except CollectionBusy as error:
        raise NotReady(f"Another worker is making the asset records of collection {name!r}.") from error


def record_for_command(opened: Opened) -> None:
    """The same for a command that reads records; raises CollectionBusy."""
    files = opened.files
    if files.assets.complete():
        return
    manifest = files.current()
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    with write_lock(opened.redis, opened.name, "recording"):
        _record(opened.store, opened.redis, files, manifest, codec)


def _record(store: ObjectStore, client: RedisClient, files: CollectionStore, manifest: Manifest, codec: Codec) -> None:
    """Write every document as a record of its asset, the newest of which counts, and note the files' digests; say of
    jobs that are outdated that they are."""
    belongs, digests = belonging(manifest, Translation(files, manifest, codec)), ProtectedDigests(store)

    def write(result: ActivationResult) -> None:
        files.assets.put(AssetRecord.of(result, 1))
        digests.note(result)

    with activations_of(files, manifest, "records") as documents:

        def record(some: Sequence[ActivationResult]) -> None:
            for _ in bounded_map(write, some, _WRITERS):
                pass
            documents.note_jobs(some)

        documents.read(store, files.removals, belongs, lambda *_: None, record)
        for superseded in documents.superseded():
            mark_outdated(client, superseded, {})
        for some in documents.each():
            mark_outdated(client, {}, _removed(some))
        files.assets.mark_complete()
        if documents:
            logger.info("Collection %s: %d assets are on record now", manifest.collection, len(documents))
    documents.delete()


def _removed(some: Sequence[OnRecord]) -> dict[str, int]:
    """Jobs whose asset was removed since, and when (ms)."""
    return {
        one.activation.job_id: entry_order(one.removal)[0] for one in some if one.activation and one.current is None
    }
