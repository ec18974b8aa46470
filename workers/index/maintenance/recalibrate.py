"""Measures a collection's calibration again when it has doubled: its assets are not those of the build any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from workers.index.codec.codec import Codec, Codes, Features, Positions, search_many
from workers.index.collection.files import CollectionStore
from workers.index.collection.manifest import Manifest, SegmentFiles
from workers.index.collection.segment import Segment
from workers.index.verdicts.background import Background
from workers.index.verdicts.calibration import Calibration
from workers.index.verdicts.duplicates import near_distance, neighbours
from workers.index.verdicts.measure import Contents, Queries, calibrate, searched_on_gpu

__all__ = ["has_doubled", "remeasured"]

_DOUBLED: Final = 2
_CELLS: Final = 64  # in which a background image's own entry, and copies of it, are looked for
_CANDIDATES: Final = 200
# Of assets only codes are left, where no features are stored: one whose code is hardly farther from a photograph than
# the photograph's own code is a copy of it. Measured with `compact` and PQ8x8: that finds 99.8 % of copies saved as
# JPEG 50, 100 % of those scaled by half, and takes none of 40,000 other images for a copy of one of 773 (nor does 1.2).
_COPY: Final = 1.1


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
    contents = Contents(codec, np.concatenate([*assets, others]), sum(map(len, assets)), _stored_in(manifest, parts))
    before, photographs = manifest.calibration, background.features[: background.photographs]

    def measure(searched: Contents) -> Calibration:
        queries = Queries(photographs, _related(searched, others, background))
        return calibrate(searched, [queries], before.fpr, before.background)

    measured = searched_on_gpu(contents, len(photographs), measure).with_copies_of(before)
    return manifest.model_copy(update={"calibration": measured.at_least(before)})


def _stored_in(
    manifest: Manifest, parts: Sequence[tuple[SegmentFiles, Segment]]
) -> Callable[[Positions], Features] | None:
    """The stored features at positions among the current assets of all segments, and then their distractors."""
    if (stored := manifest.stored) is None:
        return None
    ordered = sorted(parts, key=lambda pair: pair[0].distractors)
    places = [np.arange(len(s.assets)) if part.distractors else np.flatnonzero(s.current) for part, s in ordered]
    starts = np.cumsum([0, *map(len, places)])

    def at(positions: Positions) -> Features:
        numbers = np.searchsorted(starts, positions, side="right") - 1
        rows = [
            ordered[number][1].stored[places[number][position - starts[number]]]
            for number, position in zip(numbers.tolist(), positions.tolist(), strict=True)
        ]
        return stored.decode(np.stack(rows)) if rows else np.empty((0, stored.dimension), dtype=np.float32)

    return at


def _related(contents: Contents, others: Codes, background: Background) -> list[frozenset[int]]:
    """For each photograph of the background, the positions of entries that it may be a copy of: its own, those of its
    near-duplicates, and those of assets that are copies of it: it may have been registered too.

    The distractors come after the assets; they are the background's images in order, or these among others, as in the
    starter collection, where the nearest one is taken for its own.
    """
    features, codec, first = background.features[: background.photographs], contents.codec, contents.assets
    found = search_many(codec, codec.filled(others), features, _CELLS, 1)
    distances, positions = found[0][:, 0], found[1][:, 0]
    own = [frozenset({first + position} if position >= 0 else ()) for position in positions.tolist()]
    near = near_distance(features)
    if len(others) == len(background):
        duplicates = neighbours(features, background.features, near)
        own = [
            known | {first + i} | {first + position for position in alike}
            for i, (known, alike) in enumerate(zip(own, duplicates, strict=True))
        ]
    exact = contents.features is not None or codec.keeps_features
    limits = np.maximum(_COPY * distances, near if exact else 0.0)
    return [known | copies for known, copies in zip(own, _copies(contents, features, limits), strict=True)]


def _copies(contents: Contents, features: Features, within: Features) -> Iterator[frozenset[int]]:
    """For each feature (Q, D), the positions of the assets that are within its own distance (Q,) of it."""
    depth = min(_CANDIDATES, len(contents.codes))
    for (distances, positions), limit in zip(contents.nearest(features, _CELLS, depth), within, strict=True):
        assets = (positions >= 0) & (positions < contents.assets)
        yield frozenset(positions[assets & (distances <= limit)].tolist())
