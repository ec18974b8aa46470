"""Verification of a collection: whether its files are undamaged, and whether its entries are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tasks.errors import CorruptSegment
from workers.index.codec.codec import Codec, Features
from workers.index.collection.collection import Collection
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.manifest import Manifest, SegmentFiles
from workers.index.collection.pinned import current_manifest
from workers.index.collection.segment import Segment
from workers.index.collection.segments import open_segments

__all__ = ["Verified", "verify_collection"]

_TIED: Final = 1e-5
_NEIGHBOURS: Final = 10


@dataclass(frozen=True)
class Verified:
    """What a verification saw.

    Attributes:
        files: files read in the store, all of them undamaged.
        entries: assets in the segments.
        journal: changes in the journal that the segments do not cover.
        asked: entries that were searched by the reconstructions of their codes, or by their stored features.
        found_at_1, found_at_16: how many of these were among the first matches, by nprobe. A reconstruction may lie
            outside its own cell, so at nprobe 1 some are missed.
    """

    files: int
    entries: int
    journal: int
    asked: int
    found_at_1: int
    found_at_16: int

    @property
    def share(self) -> float:
        """Share of the searched entries that were found at nprobe 16; 1 when none was searched."""
        return self.found_at_16 / self.asked if self.asked else 1.0


def verify_collection(files: CollectionStore, journal: Journal, collection: Collection, sample: int) -> Verified:
    """Read every file of every kept generation in the store, and search a sample of the entries.

    Raises:
        CorruptSegment: a file is missing or damaged, or holds another number of entries than the manifest says; the
            message names it.
    """
    manifest = current_manifest(files, journal)
    digests = manifest.digests.union(*(kept.digests for kept in files.generations()))
    for digest in sorted(digests):
        files.check(digest)
    codec = collection.codec
    assets, features = _sampled(files, manifest, codec, sample)
    found = [sum(_finds(collection, f, a, nprobe) for f, a in zip(features, assets, strict=True)) for nprobe in (1, 16)]
    entries = manifest.assets
    changes = sum(1 for _ in journal.all_after(manifest.journal_entry))
    return Verified(len(digests), entries, changes, len(assets), *found)


def _sampled(files: CollectionStore, manifest: Manifest, codec: Codec, sample: int) -> tuple[list[str], Features]:
    """Assets of some entries of the segments, and their features (N, D): as stored, or reconstructed from codes."""
    random = np.random.default_rng(0)
    assets: list[str] = []
    features = [np.empty((0, codec.dimension), dtype=np.float32)]
    for part, segment in zip(manifest.segments, open_segments(files, manifest, codec), strict=True):
        _compare(part, segment)
        files.check_blocks(part)
        if part.distractors:
            continue
        chosen = np.sort(random.permutation(np.flatnonzero(segment.current))[:sample])
        assets += [segment.assets[int(position)] for position in chosen]
        if len(chosen):
            stored = manifest.stored
            features.append(stored.decode(segment.stored[chosen]) if stored else codec.decode(segment.codes_at(chosen)))
    return assets, np.concatenate(features)


def _compare(part: SegmentFiles, segment: Segment) -> None:
    """Compare the numbers of entries that the manifest says with those in the files."""
    said, found = (part.count, part.superseded), (len(segment), len(segment.hidden))
    if said != found:
        raise CorruptSegment(
            f"Segment {part.index[:12]} has {found[0]:,} entries and {found[1]:,} hidden ones, its manifest says "
            f"{said[0]:,} and {said[1]:,}."
        )


def _finds(collection: Collection, feature: Features, asset_id: str, nprobe: int) -> bool:
    """Whether an asset is among the first matches, or they all are as near as the first: many assets may share a code.
    One that the journal changed since may be anywhere, and counts as found."""
    matches = collection.search(feature, _NEIGHBOURS, nprobe).matches
    if any(match.asset_id == asset_id for match in matches) or collection.superseded(asset_id):
        return True
    return bool(matches) and matches[-1].distance - matches[0].distance < _TIED
