"""A collection's next codec: trained on the features of its images, and published as its next generation.

Only the last step, which is one write, changes what workers answer from. Whatever was killed before it is begun again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from workers.index.codec.codec import Codec, Codes, Features, Positions
from workers.index.codec.plan import usual_cells
from workers.index.codec.stored import Rows
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.manifest import CodecFile, Manifest, SegmentFiles
from workers.index.collection.segment import Entries, Segment, SegmentPaths, write_segment
from workers.index.collection.segments import open_segments
from workers.index.collection.workspace import workspace
from workers.index.maintenance.build import NewCollection, train_collection
from workers.index.maintenance.starter import with_usual_copies
from workers.index.maintenance.upkeep import CheckLock, next_generation, publish_next
from workers.index.verdicts.background import Background

__all__ = ["Candidate", "Current", "Originals", "advice", "outgrown", "switch", "train"]

_TOGETHER: Final = 50_000
_OUTGROWN: Final = 4  # times as many cells would be made today
_DRIFTED: Final = 1.25
_FEWEST: Final = 100  # of the features that a drift is told by
_SAMPLE: Final = 5_000


@dataclass(frozen=True)
class Originals:
    """What was extracted from originals: features (D,) and the originals' digests by asset_id, and the digests of the
    features' files in the store."""

    features: Mapping[str, Features]
    digests: Mapping[str, str]
    objects: list[str]

    def still_of(self, sources: Iterable[tuple[str, str]]) -> dict[str, Features]:
        """The features of the images that the assets still have: extraction takes its time, and an asset that was
        activated with another image meanwhile has to keep what its new code says.

        Args:
            sources: each asset that was activated, with the digest of its original, as it is now.
        """
        others = {asset_id for asset_id, source in sources if self.digests.get(asset_id, source) != source}
        return {asset_id: feature for asset_id, feature in self.features.items() if asset_id not in others}


@dataclass(frozen=True)
class Current:
    """A generation, open: what its next codec is made from."""

    manifest: Manifest
    codec: Codec
    segments: list[tuple[SegmentFiles, Segment]]

    @classmethod
    def open(cls, files: CollectionStore, manifest: Manifest) -> Current:
        codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
        return cls(manifest, codec, list(zip(manifest.segments, open_segments(files, manifest, codec), strict=True)))

    def assets(self) -> Iterator[str]:
        """The asset_ids, in order of the segments and of their positions."""
        for segment, positions in self._each():
            yield from (segment.assets[position] for position in positions.tolist())

    def metas(self) -> Iterator[str]:
        for segment, positions in self._each():
            yield from (segment.metas[position] for position in positions.tolist())

    def rows(self) -> Iterator[Rows]:
        """The stored features, where there are any."""
        if self.manifest.stored:
            yield from (segment.stored[positions] for segment, positions in self._each())

    def write_features(self, path: Path, known: Mapping[str, Features]) -> tuple[Features, int]:
        """Write the assets' features to a file; returns them (N, D), mapped, and how many of them were not to be had
        and are reconstructions of codes.

        Args:
            known: features (D,) of images, by asset_id, for a collection that stores none.
        """
        stored, lost, read = self.manifest.stored, 0, None
        codes = np.empty((0, self.codec.code_size), dtype=np.uint8)
        with path.open("wb") as file:
            for segment, positions in self._each():
                if stored:
                    features = stored.decode(segment.stored[positions])
                else:
                    if segment is not read:
                        codes, read = segment.codes, segment
                    features = self.codec.decode(codes[positions])
                    found = [known.get(segment.assets[position]) for position in positions.tolist()]
                    for row, feature in zip(features, found, strict=True):
                        row[:] = row if feature is None else feature
                    lost += sum(feature is None for feature in found)
                file.write(np.ascontiguousarray(features, dtype="<f4").data)
        shape = (self.manifest.assets, self.codec.dimension)
        return np.memmap(path, dtype="<f4", mode="r", shape=shape) if shape[0] else np.empty(shape, np.float32), lost

    def _each(self) -> Iterator[tuple[Segment, Positions]]:
        """The segments of assets, with some of their current positions at a time."""
        for part, segment in self.segments:
            if not part.distractors:
                positions = np.flatnonzero(segment.current)
                for start in range(0, len(positions), _TOGETHER):
                    yield segment, positions[start : start + _TOGETHER]


@dataclass(frozen=True)
class Candidate:
    """The next codec and what was calibrated with it, and the assets' codes (N, code_size), in order."""

    new: NewCollection
    codes: Codes


def train(files: CollectionStore, current: Current, features: Features, factory: str) -> Candidate:
    """Train a codec for the features (N, D) of a collection's assets, and calibrate it at the present rate.

    Raises:
        InvalidRequest: FAISS cannot build or train that index on so few features.
    """
    manifest = current.manifest
    background = Background.read(files.fetch(manifest.background)) if manifest.background else None
    fpr = manifest.calibration.fpr if manifest.calibration else manifest.threshold_fpr or 0.01
    new, codes = train_collection(
        manifest.collection, factory, manifest.extractor, features, fpr, background, manifest.features
    )
    return Candidate(with_usual_copies(new), codes)


def switch(
    files: CollectionStore, journal: Journal, current: Current, candidate: Candidate, check_lock: CheckLock
) -> Manifest:
    """Publish the candidate as the collection's next generation. The journal's later changes apply to it, as they do
    after a rollback to a generation before: see :mod:`workers.index.collection.translation`.

    Raises:
        CollectionBusy: the lock was lost; nothing was published.
    """
    manifest, codec = current.manifest, candidate.new.codec
    with workspace(files) as folder:
        paths = SegmentPaths.below(folder, features=manifest.features is not None)
        write_segment(codec, Entries(candidate.codes, current.assets(), current.metas(), current.rows()), paths)
        segments = [files.upload_segment(paths), *_distractors(files, current, candidate, paths)]
        codec.write(folder / "codec")
        digest = files.upload(folder / "codec")
    known = manifest.codecs or [CodecFile(digest=manifest.codec, factory=manifest.factory)]
    added = [] if any(digest == one.digest for one in known) else [CodecFile(digest=digest, factory=codec.factory)]
    following = next_generation(files, manifest, segments=segments, journal_entry=manifest.journal_entry).model_copy(
        update={
            "codec": digest,
            "factory": codec.factory,
            "calibration": candidate.new.calibration,
            "threshold": candidate.new.threshold,
            "threshold_fpr": candidate.new.threshold_fpr,
            "codecs": [*known, *added],
        }
    )
    publish_next(files, journal, following, check_lock)
    return following


def _distractors(
    files: CollectionStore, current: Current, candidate: Candidate, paths: SegmentPaths
) -> Iterator[SegmentFiles]:
    """The segments of distractors: those of the background by its features, others by what their codes decode to."""
    codec, by_features = candidate.new.codec, candidate.new.distractors
    for part, segment in current.segments:
        if part.distractors:
            exact = by_features is not None and len(by_features) == len(segment.assets)
            codes = by_features if exact else codec.encode(current.codec.decode(segment.codes))
            assert codes is not None
            rows = [segment.stored] if current.manifest.features else ()
            write_segment(codec, Entries(codes, segment.assets, segment.metas, rows), paths)
            yield files.upload_segment(paths).model_copy(update={"distractors": True})


def advice(current: Current) -> list[str]:
    """Why the collection should be trained again; nothing when it need not be."""
    return [reason for reason in (outgrown(current.manifest), _drift(current)) if reason]


def outgrown(manifest: Manifest) -> str:
    """Whether the collection has too many images for its cells; "" when it has not."""
    cells, wanted = re.search(r"IVF(\d+)", manifest.factory), usual_cells(manifest.assets)
    if not cells or int(cells[1]) * _OUTGROWN > wanted:
        return ""
    return (
        f"{manifest.assets:,} images are {manifest.assets // int(cells[1]):,} in each of {int(cells[1]):,} cells; an "
        f"index of today would have {wanted:,}"
    )


def _drift(current: Current) -> str:
    """Whether newer entries are farther from their codes than those of the largest segment, which the codec was trained
    on; told by stored features."""
    stored = current.manifest.stored
    parts = [(part, segment) for part, segment in current.segments if not part.distractors]
    if stored is None or len(parts) < 2:
        return ""
    oldest = max(parts, key=lambda pair: pair[0].count)[1]
    errors: list[tuple[bool, Features]] = []
    for _, segment in parts:
        positions = np.random.default_rng(0).permutation(np.flatnonzero(segment.current))[:_SAMPLE]
        positions.sort()
        moved = stored.decode(segment.stored[positions]) - current.codec.decode(segment.codes_at(positions))
        errors.append((segment is oldest, np.einsum("nd,nd->n", moved, moved)))
    old, new = (np.concatenate([some for is_old, some in errors if is_old == wanted]) for wanted in (True, False))
    if len(new) < _FEWEST or not len(old) or new.mean() < _DRIFTED * old.mean():
        return ""
    return (
        f"newer images are {new.mean() / old.mean():.2f} times as far from their codes as those that the index was "
        "trained on"
    )
