"""The starter collection: it comes with the package, so that the first command works without any training data.

It holds the codec and the codes of 40,000 reference images for the default extractor; a worker publishes it when the
store has no collection of that name yet. `aii index make-starter` makes its files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np

from tasks.errors import CollectionBusy, CollectionMissing
from tasks.messages import Frozen
from tasks.results import ExtractorIdentity
from workers.index.codec.codec import Codec, Codes
from workers.index.collection.collection import check_extractor
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.lock import WriteLock
from workers.index.collection.manifest import Manifest
from workers.index.maintenance.build import NewCollection, publish_first

NAME: Final = "starter"
FOLDER: Final = Path(__file__).parents[1] / "starter_data"
CODEC, CODES, CARD = "codec.faiss", "codes.npz", "starter.json"
_RETRY_EVERY_S: Final = 0.2


class Card(Frozen):
    """What the starter's files were made from."""

    factory: str
    extractor: ExtractorIdentity
    count: int
    threshold: float
    threshold_fpr: float
    description: str


def read_card() -> Card:
    return Card.model_validate_json((FOLDER / CARD).read_bytes())


def read_codes() -> Codes:
    """The codes (N, code_size) uint8 of the reference images."""
    with np.load(FOLDER / CODES, allow_pickle=False) as archive:
        codes: Codes = archive["codes"]
    return codes


def reference_id(number: int) -> str:
    """The `asset_id` of a reference image."""
    return f"reference-{number:05d}"


def publish_starter(
    files: CollectionStore, journal: Journal, extractor: ExtractorIdentity,
    write_lock: Callable[[str], AbstractContextManager[WriteLock]],
) -> Manifest:  # fmt: skip
    """The starter's manifest; publishes the collection first when the store does not have it.

    Of several workers that start at once, one publishes it and the others wait for that.

    Args:
        write_lock: gives the collection's lock; see :func:`workers.index.collection.lock.write_lock`.

    Raises:
        ExtractorMismatch: this worker's extractor is not the one the starter was made with.
    """
    while True:
        try:
            return files.current()
        except CollectionMissing:
            check_extractor(NAME, read_card().extractor, extractor)
        try:
            with write_lock(NAME) as lock:
                return _publish(files, journal, lock)
        except CollectionBusy:
            time.sleep(_RETRY_EVERY_S)


def _publish(files: CollectionStore, journal: Journal, lock: WriteLock) -> Manifest:
    card, codes = read_card(), read_codes()
    codec = Codec.read(FOLDER / CODEC, card.factory)
    new = NewCollection(NAME, codec, card.extractor, card.threshold, card.threshold_fpr)
    return publish_first(files, journal, new, [reference_id(i) for i in range(len(codes))], codes, lock.check)
