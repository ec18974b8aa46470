"""Extraction of the references' features: in this process, or by workers as jobs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tasks.files import write_atomically
from tasks.names import sha256_hex
from workers.extractors.base import Extractor, FeatureSource
from workers.extractors.features import FeatureFolder
from workers.images import Limits
from workers.images.folders import listing_digest
from workers.index.codec.codec import Features

if TYPE_CHECKING:
    from workers.index.collection.opened import Opened

__all__ = ["Extract", "Extracted", "extract_by_workers", "extract_here", "mapped"]

_CHUNK: Final = 65_536


@dataclass(frozen=True)
class Extracted:
    """Features (N, D) float32, mapped from disk so that a million fit, of N files named by their digests; and a line
    for each file that was skipped."""

    assets: Sequence[str]
    features: Features
    skipped: Sequence[str]

    def without(self, assets: Collection[str], path: Path) -> Extracted:
        """All but some; `path` is where the rest is written, if it is not all."""
        keep = np.array([asset not in assets for asset in self.assets], dtype=bool)
        if keep.all():
            return self
        kept = [asset for asset, wanted in zip(self.assets, keep, strict=True) if wanted]
        with path.open("wb") as file:
            for start in range(0, len(keep), _CHUNK):
                part = slice(start, start + _CHUNK)
                file.write(self.features[part][keep[part]].tobytes())
        return Extracted(kept, mapped(path, self.features.shape[1]), self.skipped)


Extract = Callable[[Sequence[Path], Path], Extracted]
"""Extract folders and tar files, and keep what was done below a folder, where a second run finds it: for each set of
images and each extractor in a place of its own."""


def mapped(path: Path, dimension: int) -> Features:
    """Features (N, dimension) float32 in a file, read into memory only where they are used."""
    if not path.stat().st_size:
        return np.empty((0, dimension), dtype=np.float32)
    return np.memmap(path, dtype=np.float32, mode="r").reshape(-1, dimension)


def extract_here(extractor: FeatureSource, limits: Limits, progress: Callable[[int], None]) -> Extract:
    def extract(sources: Sequence[Path], folder: Path) -> Extracted:
        made = FeatureFolder(_place(folder, sources, extractor), extractor, sources)
        made.fill(limits, progress)
        return Extracted(made.assets, made.features, made.skipped)

    return extract


def extract_by_workers(
    opened: Callable[[str], Opened], extractor: Extractor, progress: Callable[[int], None]
) -> Extract:
    """Images are uploaded to the bucket of originals, where the workers fetch them.

    Args:
        opened: gives a workspace by its name; as for a collection that is being built.
    """
    from workers.index.maintenance.gather import Gatherer  # noqa: PLC0415  # brings Celery along

    def extract(sources: Sequence[Path], folder: Path) -> Extracted:
        place = _place(folder, sources, extractor)
        place.mkdir(parents=True, exist_ok=True)
        note, features = place / "gathered.json", place / "gathered.f32"
        if not note.exists():
            workspace = opened(_workspace(place))
            gatherer = Gatherer(
                workspace.store, workspace.ledger, workspace.sender, workspace.files, workspace.name,
                extractor.identity, workspace.settings.max_image_bytes,
            )  # fmt: skip
            gathered = gatherer.gather(map(str, sources), features, progress)
            write_atomically(note, json.dumps({"assets": gathered.assets, "skipped": gathered.skipped}))
            for digest in gathered.objects:
                workspace.files.delete_features(digest)
        done = json.loads(note.read_text("utf-8"))
        return Extracted(done["assets"], mapped(features, extractor.dimension), done["skipped"])

    return extract


def _place(folder: Path, sources: Sequence[Path], extractor: FeatureSource) -> Path:
    images, _ = listing_digest(sources)
    return folder / sha256_hex(f"{images} {extractor.sha256}".encode())[:16]


def _workspace(folder: Path) -> str:
    """A name of its own for this run and its repetitions."""
    note = folder / "workspace.txt"
    if not note.exists():
        write_atomically(note, f"evaluation-{uuid.uuid4().hex[:12]}")
    return note.read_text("utf-8")
