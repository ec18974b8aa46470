"""The starter collection: it comes with the package, so that the first command works without any training data.

It holds the codec and the codes of 40,000 reference images for the default extractor; a worker publishes it when the
store has no collection of that name yet. `python -m workers.index.build_starter` makes it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from tasks.errors import CollectionMissing
from tasks.messages import Frozen
from tasks.results import ExtractorIdentity
from workers.index.build import publish_first
from workers.index.codec import Codec, Codes
from workers.index.collection import check_extractor
from workers.index.manifest import CollectionStore, Manifest

NAME: Final = "starter"
FOLDER: Final = Path(__file__).with_name("starter_data")


class Card(Frozen):
    """What the starter's files were made of."""

    factory: str
    extractor: ExtractorIdentity
    count: int
    threshold: float
    threshold_fpr: float
    description: str


def read_card() -> Card:
    return Card.model_validate_json((FOLDER / "starter.json").read_bytes())


def read_codes() -> Codes:
    """The codes (N, code_size) uint8 of the reference images."""
    with np.load(FOLDER / "codes.npz", allow_pickle=False) as archive:
        codes: Codes = archive["codes"]
    return codes


def reference_id(number: int) -> str:
    """The `asset_id` of a reference image."""
    return f"reference-{number:05d}"


def publish_starter(files: CollectionStore, extractor: ExtractorIdentity) -> Manifest:
    """The starter's manifest, published first when the store does not have it.

    Two workers that do this at once write the same bytes.

    Raises:
        ExtractorMismatch: this worker's extractor is not the one the starter was made with.
    """
    try:
        return files.current()
    except CollectionMissing:
        pass
    card = read_card()
    check_extractor(NAME, card.extractor, extractor)
    codec = Codec.read(FOLDER / "codec.faiss", card.factory)
    codes = read_codes()
    assets = [reference_id(i) for i in range(len(codes))]
    return publish_first(files, NAME, codec, card.extractor, assets, codes, card.threshold, card.threshold_fpr)
