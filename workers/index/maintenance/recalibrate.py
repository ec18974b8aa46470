"""Measures a collection's calibration again when it has doubled: its assets are not those of the build any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from workers.index.codec.codec import Codec, Codes, search_many
from workers.index.collection.files import CollectionStore
from workers.index.collection.manifest import Manifest
from workers.index.collection.segment import Segment
from workers.index.verdicts.background import Background
from workers.index.verdicts.duplicates import near_distance, neighbours
from workers.index.verdicts.measure import Contents, Queries, calibrate

__all__ = ["has_doubled", "remeasured"]

_DOUBLED: Final = 2
_CELLS: Final = 64  # in which a background image's own entry is looked for


def has_doubled(manifest: Manifest) -> bool:
    """Whether the entries are twice those that the calibration was measured with.

    Without a background nothing can be measured: of assets only codes are left, which do not tell near-duplicates from
    other images.
    """
    if manifest.calibration is None or manifest.background is None:
        return False
    return sum(part.count for part in manifest.segments) >= _DOUBLED * manifest.calibration.entries


def remeasured(files: CollectionStore, manifest: Manifest, codec: Codec, segments: Sequence[Segment]) -> Manifest:
    """The manifest with a calibration by its background's photographs, all entries being tried as the false match. The
    higher of its rates and the former ones counts: those were of the collection's own images too.

    Args:
        manifest: has a calibration and a background.
        segments: those of the manifest, open.
    """
    assert manifest.calibration is not None
    assert manifest.background is not None
    background = Background.read(files.fetch(manifest.background))
    parts = list(zip(manifest.segments, segments, strict=True))
    assets = [segment.codes[segment.current] for part, segment in parts if not part.distractors]
    others = np.concatenate([segment.codes for part, segment in parts if part.distractors])
    contents = Contents(codec, np.concatenate([*assets, others]), sum(map(len, assets)))
    before, photographs = manifest.calibration, background.features[: background.photographs]
    queries = Queries(photographs, _related(codec, others, background, contents.assets))
    measured = calibrate(contents, [queries], before.fpr, before.background).with_copies_of(before)
    return manifest.model_copy(update={"calibration": measured.at_least(before)})


def _related(codec: Codec, others: Codes, background: Background, first: int) -> list[frozenset[int]]:
    """For each photograph of the background, the positions of entries that it may be a copy of: its own, and those of
    its near-duplicates. The distractors begin at the position `first`; they are the background's images in order, or
    these among others, as in the starter collection, where the nearest one is taken for its own."""
    features = background.features[: background.photographs]
    own: list[frozenset[int]] = _nearest(codec, others, background)
    if len(others) == len(background):
        near = neighbours(features, background.features, near_distance(features))
        own = [nearest | known | {i} for i, (nearest, known) in enumerate(zip(own, near, strict=True))]
    return [frozenset(first + position for position in positions) for positions in own]


def _nearest(codec: Codec, others: Codes, background: Background) -> list[frozenset[int]]:
    features = background.features[: background.photographs]
    found: npt.NDArray[np.int64] = search_many(codec, codec.filled(others), features, _CELLS, 1)[1][:, 0]
    return [frozenset({position} if position >= 0 else ()) for position in found.tolist()]
