"""The starter collection: it comes with the package, so that the first command works without any training data.

It holds the codec and the codes of 40,000 reference images for the default extractor; a worker publishes it when the
store has no collection of that name yet. `python -m workers.index.build_starter` makes it anew.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from tasks.errors import CollectionMissing
from tasks.messages import Frozen
from tasks.results import ExtractorIdentity
from workers.index.codec import Codec, Codes
from workers.index.collection import check_extractor
from workers.index.journal import BEGINNING
from workers.index.manifest import CollectionStore, Manifest, SegmentFiles
from workers.index.segment import write_segment

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
    codec_path = FOLDER / "codec.faiss"
    codec = Codec.read(codec_path, card.factory)
    codes = read_codes()
    with tempfile.TemporaryDirectory() as folder:
        index, assets = Path(folder, "index"), Path(folder, "assets")
        write_segment(codec, codes, [reference_id(i) for i in range(len(codes))], index, assets)
        segment = SegmentFiles(index=files.upload(index), assets=files.upload(assets), count=len(codes))
    manifest = Manifest(
        collection=NAME,
        generation=1,
        factory=card.factory,
        extractor=card.extractor,
        codec=files.upload(codec_path),
        segments=[segment],
        journal_entry=BEGINNING,
        threshold=card.threshold,
        threshold_fpr=card.threshold_fpr,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    check_extractor(manifest, extractor)
    files.publish(manifest)
    return manifest
