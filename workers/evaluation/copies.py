"""Features of edited copies, kept on disk edit by edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from workers.activation.engine import Engine
from workers.evaluation.edits import EDITS, Edit
from workers.evaluation.subject import Photograph
from workers.extractors.inputs import to_input
from workers.images import Limits
from workers.index.codec import Features

__all__ = ["copies_of", "features_of"]

_BATCH: Final = 32
_EDITORS: Final = 2


def copies_of(
    photographs: Sequence[Photograph], engine: Engine, limits: Limits, folder: Path, seed: int,
    progress: Callable[[int], None],
) -> dict[str, Features]:  # fmt: skip
    """By edit, features (N, D) of the edited copies of N photographs; `progress` is told how many are made."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for done, (name, edit) in enumerate(EDITS.items(), 1):
        path = folder / f"{name}.npy"
        if not path.exists():
            part = path.with_suffix(".part.npy")
            np.save(part, features_of(photographs, engine, limits, edit, seed))
            part.replace(path)
        found[name] = np.load(path, allow_pickle=False)
        progress(done * len(photographs))
    return found


def features_of(photographs: Sequence[Photograph], engine: Engine, limits: Limits, edit: Edit, seed: int) -> Features:
    """Features (N, D) float32 of one edit of N photographs."""
    side = engine.extractor.input_size

    def edited(photograph: Photograph) -> torch.Tensor:
        image = Image.fromarray(photograph.decoded(limits).pixels)
        return to_input(np.asarray(edit(image, seed)), side)

    features = [np.empty((0, engine.extractor.dimension), dtype=np.float32)]
    with ThreadPoolExecutor(_EDITORS) as editors:
        for start in range(0, len(photographs), _BATCH):
            inputs = list(editors.map(edited, photographs[start : start + _BATCH]))
            features.append(engine.features(torch.stack(inputs)))
    return np.concatenate(features)
