"""The newest state of an asset, where not all of its documents were read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tasks.assets.records import AssetRecords
from tasks.names import result_key
from tasks.results import ActivationResult
from tasks.storage import ObjectStore
from workers.index.collection.journal import BEGINNING, entry_order
from workers.index.maintenance.activations import OnRecord
from workers.index.maintenance.documents import Activation, documents_at

__all__ = ["Newest"]


class Newest:
    """Asks the records of assets, each of which was written before its document. Thread-safe.

    Args:
        belongs: see :func:`workers.index.maintenance.documents.belonging`.
        covered: the last entry of the journal that the segments cover.
    """

    def __init__(
        self, store: ObjectStore, records: AssetRecords, belongs: Callable[[ActivationResult], bool], covered: str
    ) -> None:
        self._store, self._records, self._belongs, self._covered = store, records, belongs, covered

    def of(self, asset: OnRecord) -> OnRecord | None:
        """An asset with its newest activation; None when the segments hold one whose document cannot be had: that one
        has to stay."""
        known = asset.activation.journal_entry if asset.activation else BEGINNING
        for record in self._records.of(asset.asset_id):
            if entry_order(record.journal_entry) <= entry_order(max(known, asset.removal, key=entry_order)):
                break
            if found := self._read(result_key(record.job_id, record.commit)):
                return replace(asset, activation=found)
            if entry_order(record.journal_entry) <= entry_order(self._covered):
                return None
        return asset

    def _read(self, key: str) -> Activation | None:
        for result in documents_at(self._store, key):
            if isinstance(result, ActivationResult) and self._belongs(result):
                return Activation.of(result)
        return None
