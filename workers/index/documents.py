"""The result documents of a collection's activations: what S3 knows of its assets, whatever happens to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pydantic import ValidationError

from tasks.documents import document_keys, read_document_at
from tasks.errors import ObjectMissing
from tasks.results import ActivationResult, parse_result
from tasks.storage import ObjectStore
from workers.index.journal import entry_order
from workers.index.manifest import Manifest

__all__ = ["newest_activations"]

_READERS: Final = 16


def newest_activations(
    store: ObjectStore, manifest: Manifest, progress: Callable[[int], None]
) -> dict[str, ActivationResult]:
    """The newest document of each asset of a collection; `progress` is told how many documents were read."""
    newest: dict[str, ActivationResult] = {}
    for result in _activations(store, manifest, progress):
        known = newest.get(result.asset_id)
        if known is None or entry_order(result.journal_entry) > entry_order(known.journal_entry):
            newest[result.asset_id] = result
    return newest


def _activations(store: ObjectStore, manifest: Manifest, progress: Callable[[int], None]) -> Iterator[ActivationResult]:
    keys = list(document_keys(store))
    with ThreadPoolExecutor(_READERS) as readers:
        for count, data in enumerate(readers.map(lambda key: _document(store, key), keys), 1):
            progress(count)
            try:
                result = parse_result(data)
            except ValidationError:
                continue
            if isinstance(result, ActivationResult) and _belongs(result, manifest):
                yield result


def _belongs(result: ActivationResult, manifest: Manifest) -> bool:
    """To the collection, and made by its extractor: another one's codes would mean nothing in it."""
    return (result.collection, result.extractor) == (manifest.collection, manifest.extractor)


def _document(store: ObjectStore, key: str) -> bytes:
    try:
        return read_document_at(store, key)
    except ObjectMissing:
        return b""
