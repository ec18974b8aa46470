"""Makes the starter collection's files from reference images; `aii index make-starter` calls it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from tasks.results import ExtractorIdentity
from workers.extractors.base import Extractor
from workers.extractors.features import FeatureFolder, Features
from workers.extractors.registry import load_extractor
from workers.images import Limits
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec
from workers.index.maintenance.plain_images import plain_images
from workers.index.maintenance.starter import BACKGROUND, CARD, CODEC, CODES, Card, read_card
from workers.index.verdicts.background import Background
from workers.index.verdicts.duplicates import near_distance
from workers.index.verdicts.measure import Contents, calibrate, entries_as_queries

__all__ = ["make_starter", "write_starter"]

_PHOTOGRAPHS: Final = 3_072  # three for each thousandth: enough for a false-match rate of 0.1 %
_PLAIN_IMAGES: Final = 1_024


def make_starter(
    references: Sequence[Path], folder: Path, limits: Limits, *, factory: str, fpr: float, description: str
) -> Card:
    """Extract, train, encode, calibrate; write codec, codes, background and card into `folder`.

    Args:
        references: folders or tar files of the reference images.
        fpr: share of unrelated images that may match.

    Raises:
        InvalidRequest: the index cannot be trained on so few images.
    """
    extractor = load_extractor("compact", torch.device("cpu"), precision="float32")
    features = _extracted(extractor, references, limits)
    return write_starter(features, _plain(extractor), extractor.identity, folder, (factory, fpr, description))


def write_starter(
    features: Features, plain: Features, extractor: ExtractorIdentity, folder: Path, chosen: tuple[str, float, str]
) -> Card:
    """The same from the references' features (N, D) and those of plain images (P, D).

    Args:
        chosen: factory, false-match rate and description, as in :func:`make_starter`.
    """
    factory, fpr, description = chosen
    codec = Codec.train(factory, features)
    codes = codec.encode(features)
    some = np.sort(np.random.default_rng(0).permutation(len(features))[:_PHOTOGRAPHS])
    background = Background(np.concatenate([features[some], plain]), len(some))
    queries = entries_as_queries(features, some, near_distance(features))
    contents = Contents(codec, np.concatenate([codes, codec.encode(plain)]), 0)
    calibration = calibrate(contents, [queries], fpr, "reference images")
    # The copies were measured once, with photographs that not everybody has.
    shipped = read_card() if read_card().extractor == extractor else None
    if shipped:
        calibration = calibration.with_copies_of(shipped.calibration)
    card = Card(
        factory=factory,
        extractor=extractor,
        count=len(codes),
        calibration=calibration,
        description=description,
        reranked=shipped.reranked if shipped else None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    codec.write(folder / CODEC)
    np.savez_compressed(folder / CODES, codes=codes)
    background.write(folder / BACKGROUND)
    (folder / CARD).write_text(card.model_dump_json() + "\n")
    return card


def _plain(extractor: Extractor) -> Features:
    """(P, D) of plain images."""
    inputs = [to_input(pixels, extractor.input_size) for pixels in plain_images(_PLAIN_IMAGES)]
    with torch.no_grad():
        return np.concatenate([extractor(torch.stack(inputs[i : i + 32])).numpy() for i in range(0, len(inputs), 32)])


def _extracted(extractor: Extractor, sources: Sequence[Path], limits: Limits) -> Features:
    with tempfile.TemporaryDirectory() as folder:
        made = FeatureFolder(Path(folder), extractor, sources)
        made.fill(limits, lambda _: None)
        return np.array(made.features)
