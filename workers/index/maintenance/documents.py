"""The result documents of a collection's activations: the record of its assets in S3, independent of Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from tasks.bounded_map import bounded_map
from tasks.documents import document_keys, read_document_at
from tasks.errors import ObjectMissing, TooLarge
from tasks.results import ActivationResult, Result, parse_result
from tasks.storage import ObjectStore
from workers.index.codec.codec import Codes
from workers.index.collection.journal import decode_code, entry_order
from workers.index.collection.manifest import Manifest
from workers.index.collection.translation import Translation

__all__ = ["Documents", "code_in", "newest_activations"]

_READERS: Final = 16


@dataclass
class Documents:
    """The documents of a collection's activations.

    Attributes:
        newest: the newest of each asset.
        older: the others.
        unreadable: how many documents of any kind could not be read.
    """

    newest: dict[str, ActivationResult] = field(default_factory=dict)
    older: list[ActivationResult] = field(default_factory=list)
    unreadable: int = 0

    def add(self, result: ActivationResult) -> None:
        known = self.newest.get(result.asset_id)
        if known is None or entry_order(result.journal_entry) > entry_order(known.journal_entry):
            self.newest[result.asset_id], result = result, known or result
        if known is not None:
            self.older.append(result)

    @property
    def superseded(self) -> dict[str, str]:
        """Jobs whose asset was activated by another job since, and that job."""
        pairs = ((result.job_id, self.newest[result.asset_id].job_id) for result in self.older)
        return {job_id: by for job_id, by in pairs if job_id != by}


def newest_activations(
    store: ObjectStore, manifest: Manifest, translation: Translation, progress: Callable[[int, int], None]
) -> Documents:
    """Read all result documents.

    Args:
        translation: reads the collection's codes; documents with other codes are left out.
        progress: called with the number of documents read, and of all.
    """
    documents = Documents()
    for result in _read(store, progress):
        if result is None:
            documents.unreadable += 1
        elif isinstance(result, ActivationResult) and _belongs(result, manifest, translation):
            documents.add(result)
    return documents


def _read(store: ObjectStore, progress: Callable[[int, int], None]) -> Iterator[Result | None]:
    keys = list(document_keys(store))
    for count, documents in enumerate(bounded_map(lambda key: _documents(store, key), keys, _READERS), 1):
        progress(count, len(keys))
        yield from documents


def _documents(store: ObjectStore, key: str) -> list[Result | None]:
    """The document in a list; None in place of one that cannot be read; no item for one that was deleted meanwhile."""
    try:
        return [parse_result(read_document_at(store, key))]
    except ObjectMissing:
        return []
    except (ValidationError, TooLarge):
        return [None]


def code_in(result: ActivationResult, manifest: Manifest) -> tuple[Codes, str]:
    """The code (code_size,) of a document, and what names its codec; see :meth:`Translation.read`."""
    return decode_code(result.code), manifest.tag_of(result.codec) if result.codec else ""


def _belongs(result: ActivationResult, manifest: Manifest, translation: Translation) -> bool:
    """Whether a document is of this very collection: codes of another extractor or codec mean nothing in it."""
    return (
        (result.collection, result.extractor) == (manifest.collection, manifest.extractor)
        and manifest.has_had(result.codec)
        and translation.fits(*code_in(result, manifest))
    )
