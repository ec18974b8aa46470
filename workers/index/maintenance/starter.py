"""The starter collection: it comes with the package, so that the first command works without any training data.

It holds the codec and the codes of 40,000 reference images for the default extractor; a worker publishes it when the
store has no collection of that name yet. `aii index make-starter` makes its files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tasks.errors import CollectionBusy, CollectionMissing, ExtractorMismatch
from tasks.messages import Frozen
from tasks.results import ExtractorIdentity
from workers.index.codec.codec import Codec, Codes
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.loading import check_extractor
from workers.index.collection.lock import WriteLock
from workers.index.collection.manifest import Manifest
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.build import NewCollection, publish_first
from workers.index.maintenance.upkeep import recalibrated, separated
from workers.index.verdicts.background import Background
from workers.index.verdicts.calibration import Calibration

logger = logging.getLogger(__name__)

NAME: Final = "starter"
FOLDER: Final = Path(__file__).parents[1] / "starter_data"
CODEC, CODES, CARD, BACKGROUND = FILES = "codec.faiss", "codes.npz", "starter.json", "background.npz"
# The calibration of the index that version 0.1.0 published, and the digest of its codec: a starter collection keeps the
# index that it was published with.
CARD_0_1_0: Final = "starter-0.1.0.json"
CODEC_0_1_0: Final = "1943bec0793a69db7fa97df786ec2366d525cb4ba01321e682b4083b88f8bb67"
_RETRY_EVERY_S: Final = 0.2
_USUAL_ASSETS: Final = 1_000


class Card(Frozen):
    """What the starter's files were made from.

    Attributes:
        count: of the references.
        reranked: what its calibration is where features are stored beside the codes; None in version 0.1.0's.
    """

    factory: str
    extractor: ExtractorIdentity
    count: int
    calibration: Calibration
    description: str
    reranked: Calibration | None = None


def read_card(name: str = CARD) -> Card:
    return Card.model_validate_json((FOLDER / name).read_bytes())


def read_codes() -> Codes:
    """The codes (N, code_size) uint8 of the reference images."""
    with np.load(FOLDER / CODES, allow_pickle=False) as archive:
        codes: Codes = archive["codes"]
    return codes


def shipped_background(extractor: ExtractorIdentity) -> Background | None:
    """The background that comes with the package; None when it was made with another extractor."""
    return Background.read(FOLDER / BACKGROUND) if read_card().extractor == extractor else None


def with_usual_copies(new: NewCollection) -> NewCollection:
    """A collection with the shares of edited copies that were measured in the starter collection, by which scores
    become probabilities: where it has the same extractor, and scores mean the same.

    Scores of features, whether stored or kept as codes, are lower than those of codes. Of Hamming distances none were
    measured.
    """
    card = read_card()
    if new.calibration is None or new.extractor != card.extractor or (new.codec.counts_bits and not new.exact):
        return new
    measured = card.reranked if new.exact else card.calibration
    return replace(new, calibration=new.calibration.with_copies_of(measured)) if measured else new


def open_starter(collections: OpenCollections, extractor: ExtractorIdentity) -> Codec | None:
    """Publish the starter collection where it is missing, and map it.

    None when it was made with another extractor. That does not keep the worker from serving other collections: the
    starter's jobs are refused one by one.
    """
    try:
        publish_starter(collections.files(NAME), collections.journal(NAME), extractor, collections.write_lock)
        return collections.get(NAME).codec
    except ExtractorMismatch as error:
        logger.error("%s", error)
        return None


def publish_starter(
    files: CollectionStore, journal: Journal, extractor: ExtractorIdentity,
    write_lock: Callable[[str], AbstractContextManager[WriteLock]],
) -> Manifest:  # fmt: skip
    """The starter's manifest; publishes the collection first when the store does not have it, and calibrates one that
    version 0.1.0 published.

    Of several workers that start at once, one publishes it and the others wait for that.

    Args:
        write_lock: gives the collection's lock; see :func:`workers.index.collection.lock.write_lock`.

    Raises:
        ExtractorMismatch: this worker's extractor is not the one the starter was made with.
    """
    while True:
        try:
            manifest = files.current()
        except CollectionMissing:
            check_extractor(NAME, read_card().extractor, extractor)
        else:
            if not _of_version_0_1_0(manifest):
                return manifest
        try:
            with write_lock(NAME) as lock:
                return _published(files, journal, lock)
        except CollectionBusy:
            time.sleep(_RETRY_EVERY_S)


def _of_version_0_1_0(manifest: Manifest) -> bool:
    """Whether it is the starter as that version published it; a collection that took its name is left alone."""
    return manifest.calibration is None and manifest.codec == CODEC_0_1_0


def _published(files: CollectionStore, journal: Journal, lock: WriteLock) -> Manifest:
    try:
        manifest = files.current()
    except CollectionMissing:
        return _publish(files, journal, lock)
    if not _of_version_0_1_0(manifest):
        return manifest  # another worker was first
    return recalibrated(files, journal, _verdicts(files, manifest), lock.check)


def _publish(files: CollectionStore, journal: Journal, lock: WriteLock) -> Manifest:
    card = read_card()
    codec, background = Codec.read(FOLDER / CODEC, card.factory), Background.read(FOLDER / BACKGROUND)
    distractors = np.concatenate([read_codes(), plain_codes(codec, background)])
    threshold, fpr = _usual_threshold(card.calibration)
    new = NewCollection(NAME, codec, card.extractor, threshold, fpr, card.calibration, distractors, background)
    return publish_first(files, journal, new, [], np.empty((0, codec.code_size), dtype=np.uint8), lock.check)


def plain_codes(codec: Codec, background: Background) -> Codes:
    """Of the background's plain images; its photographs are among the references."""
    return codec.encode(background.plain)


def _verdicts(files: CollectionStore, manifest: Manifest) -> dict[str, Any]:
    """What a starter that version 0.1.0 published lacks."""
    calibration = read_card(CARD_0_1_0).calibration
    threshold, fpr = _usual_threshold(calibration)
    return {
        "segments": separated(files, manifest), "calibration": calibration, "threshold": threshold,
        "threshold_fpr": fpr, "background": files.upload(FOLDER / BACKGROUND),
    }  # fmt: skip


def _usual_threshold(calibration: Calibration) -> tuple[float | None, float | None]:
    """As a distance, for readers of version 0.1.0."""
    threshold = calibration.threshold(calibration.fpr, 1, _USUAL_ASSETS)
    return (None, None) if threshold is None else (threshold * calibration.curve(1).scale, calibration.fpr)
