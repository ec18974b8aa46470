"""Makes the starter collection's files from reference images; `aii index make-starter` calls it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tasks.errors import InvalidRequest
from workers.extractors.base import Extractor
from workers.extractors.features import FeatureFolder, Features
from workers.extractors.registry import load_extractor
from workers.images import Limits
from workers.index.codec.codec import Codec
from workers.index.maintenance.build import calibrate
from workers.index.maintenance.starter import CARD, CODEC, CODES, Card

__all__ = ["make_starter"]


def make_starter(
    references: Sequence[Path], background: Path, folder: Path, limits: Limits, *, factory: str, fpr: float,
    description: str,
) -> Card:  # fmt: skip
    """Extract, train, encode, calibrate; write codec, codes and card into `folder`.

    Args:
        references: folders or tar files of the reference images.
        background: images unrelated to the references, to calibrate the threshold.
        fpr: share of the unrelated images that may be below the threshold.

    Raises:
        InvalidRequest: the index cannot be trained on so few images, or no background image finds a first match.
    """
    extractor = load_extractor("compact", torch.device("cpu"), precision="float32")
    features = _extracted(extractor, references, limits)
    codec = Codec.train(factory, features)
    codes = codec.encode(features)
    threshold = calibrate(codec, codes, _extracted(extractor, [background], limits), fpr)
    if threshold is None:
        raise InvalidRequest("No background image finds a first match: take more references.")
    card = Card(
        factory=factory,
        extractor=extractor.identity,
        count=len(codes),
        threshold=threshold,
        threshold_fpr=fpr,
        description=description,
    )
    folder.mkdir(parents=True, exist_ok=True)
    codec.write(folder / CODEC)
    np.savez_compressed(folder / CODES, codes=codes)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")
    return card


def _extracted(extractor: Extractor, sources: Sequence[Path], limits: Limits) -> Features:
    with tempfile.TemporaryDirectory() as folder:
        made = FeatureFolder(Path(folder), extractor, sources)
        made.fill(limits, lambda _: None)
        return np.array(made.features)
