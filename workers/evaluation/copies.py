"""Features of edited copies, kept on disk batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from workers.activation.engine import Engine
from workers.evaluation.extraction import mapped
from workers.evaluation.subject import Photograph
from workers.images import Limits
from workers.images.edits import Edit, edit_seed
from workers.images.tensors import to_input
from workers.index.codec.codec import Features

__all__ = ["Copies", "copies_of", "features_of"]

_PHOTOGRAPHS: Final = 16  # of a batch: each is decoded once for all its edits
_BATCH: Final = 32  # images that the extractor sees at once
_EDITORS: Final = 2

Copies = dict[str, Features]
"""By edit, features (N, D) float32 of the edited copies of N photographs."""


def copies_of(
    photographs: Sequence[Photograph], engine: Engine, limits: Limits, edits: Mapping[str, Edit], path: Path,
    seed: int, progress: Callable[[int], None],
) -> Copies:  # fmt: skip
    """Edit photographs by every edit and extract the copies, from where the file at `path` ends.

    Args:
        path: (N, E, D) float32, a batch of photographs after the other; what an interruption left of one is cut off.
        progress: told how many photographs are done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    width = engine.extractor.dimension * len(edits)
    with path.open("ab") as file, ThreadPoolExecutor(_EDITORS) as editors:
        done = file.tell() // (4 * width)
        done -= 0 if done == len(photographs) else done % _PHOTOGRAPHS
        file.truncate(4 * width * done)
        for start in range(done, len(photographs), _PHOTOGRAPHS):
            batch = photographs[start : start + _PHOTOGRAPHS]
            inputs = list(editors.map(lambda p: _edited(p, engine, limits, edits, seed), batch))
            file.write(_extracted(engine, torch.cat(inputs)).tobytes())
            file.flush()
            progress(start + len(batch))
    features = mapped(path, width).reshape(-1, len(edits), engine.extractor.dimension)
    assert len(features) == len(photographs), "a key belongs to one set of photographs"
    return {name: features[:, i] for i, name in enumerate(edits)}


def features_of(photographs: Sequence[Photograph], engine: Engine, limits: Limits) -> Features:
    """Features (N, D) float32 of N photographs as they are."""
    side = engine.extractor.input_size
    features = [np.empty((0, engine.extractor.dimension), dtype=np.float32)]
    for start in range(0, len(photographs), _BATCH):
        batch = photographs[start : start + _BATCH]
        features.append(engine.features(torch.stack([to_input(p.decoded(limits).pixels, side) for p in batch])))
    return np.concatenate(features)


def _edited(
    photograph: Photograph, engine: Engine, limits: Limits, edits: Mapping[str, Edit], seed: int
) -> torch.Tensor:
    """(E, 3, S, S) float32 in [0, 1]: one photograph in every edit."""
    image = Image.fromarray(photograph.decoded(limits).pixels)
    seed, side = edit_seed(seed, photograph.name), engine.extractor.input_size
    return torch.stack([to_input(np.asarray(edit(image, seed)), side) for edit in edits.values()])


def _extracted(engine: Engine, inputs: torch.Tensor) -> Features:
    return np.concatenate([engine.features(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)])
