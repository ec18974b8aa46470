"""Asset records for collections of version 0.1.0, which had none: made from the result documents by the first write."""

from __future__ import annotations

import logging
from typing import Final

from tasks.assets.records import AssetRecord
from tasks.bounded_map import bounded_map
from tasks.errors import CollectionBusy, NotReady
from tasks.ledger.ledger import mark_outdated
from workers.index.collection.collection import Collection
from workers.index.collection.journal import BEGINNING, entry_order
from workers.index.collection.lock import write_lock
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.documents import newest_activations

__all__ = ["record_old_assets"]

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
                _record(collections, collection)
    except CollectionBusy as error:
        raise NotReady(f"Another worker is making the asset records of collection {name!r}.") from error


def _record(collections: OpenCollections, collection: Collection) -> None:
    """Write the newest document of each asset as its record, and say of jobs that are outdated that they are."""
    manifest = collection.manifest
    files = collections.files(manifest.collection)
    documents = newest_activations(collections.store, manifest, collection.codec.code_size, lambda *_: None)
    for _ in bounded_map(lambda r: files.assets.put(AssetRecord.of(r, 1)), documents.newest.values(), _WRITERS):
        pass
    removals = files.removals.entries()
    removed = {
        result.job_id: entry_order(removals[asset_id])[0]
        for asset_id, result in documents.newest.items()
        if entry_order(removals.get(asset_id, BEGINNING)) > entry_order(result.journal_entry)
    }
    mark_outdated(collections.client, documents.superseded, removed)
    files.assets.mark_complete()
    if documents.newest:
        logger.info("Collection %s: %d assets are on record now", manifest.collection, len(documents.newest))
