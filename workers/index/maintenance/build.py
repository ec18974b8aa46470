"""Builds a collection: a codec trained on its images' features, one segment, a threshold, generation 1."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from tasks.results import ExtractorIdentity
from workers.index.codec.codec import Codec, Codes, Features, Positions
from workers.index.codec.measured import product_family
from workers.index.codec.plan import BYTE_CENTROIDS, USUAL_BYTES, usual_cells
from workers.index.codec.stored import FeatureFormat, FeatureType, Rows, kept_twice
from workers.index.codec.trainable import training_sample
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.manifest import Manifest, SettledDocuments
from workers.index.collection.pinned import publish
from workers.index.collection.segment import Entries, SegmentPaths, write_segment
from workers.index.collection.settling import MARGIN_MS
from workers.index.collection.workspace import workspace
from workers.index.maintenance.upkeep import CheckLock
from workers.index.verdicts.background import Background
from workers.index.verdicts.calibration import Calibration
from workers.index.verdicts.duplicates import groups_of, near_distance
from workers.index.verdicts.measure import Contents, Queries, calibrate, entries_as_queries

__all__ = [
    "NewCollection",
    "distractor_id",
    "encode_all",
    "publish_first",
    "suggested_factory",
    "train_collection",
]

_CALIBRATION_QUERIES: Final = 1_000
# Fewer of a collection's own images say less about a rate of 1 % than the background does.
_FEWEST_OWN_QUERIES: Final = 300
_FEWEST_TO_CALIBRATE: Final = 30
_TOGETHER: Final = 100_000  # features converted at once
# Near-duplicates are looked for by comparing all pairs.
_MOST_COMPARED: Final = 100_000


def suggested_factory(count: int, dimension: int = 512) -> str:
    """The FAISS factory string that `aii index build` uses for `count` images when none is given."""
    if count < BYTE_CENTROIDS:
        return "Flat"  # too few to train an 8-bit code on, and few enough to compare a query with all
    return product_family(dimension, min(USUAL_BYTES, dimension), usual_cells(count))


def encode_all(codec: Codec, features: Features) -> Codes:
    """Codes (N, code_size) of features (N, D), part by part: they may be mapped from a file."""
    return np.concatenate([codec.encode(part) for part in _parts(features)])


@dataclass(frozen=True)
class NewCollection:
    """A collection to be published, without its assets.

    Attributes:
        distractors: codes (B, code_size), which belong to no asset.
        background: features that the collection keeps; see :class:`Background`.
        duplicates: positions of near-duplicates among the assets, group by group.
        nprobe: how many cells are searched for a query that does not say; None for the usual number.
        features: how features are stored beside the codes; None where they are not.
    """

    name: str
    codec: Codec
    extractor: ExtractorIdentity
    threshold: float | None = None
    threshold_fpr: float | None = None
    calibration: Calibration | None = None
    distractors: Codes | None = None
    background: Background | None = None
    duplicates: Sequence[Sequence[int]] = ()
    nprobe: int | None = None
    features: FeatureType | None = None

    @property
    def exact(self) -> bool:
        """Whether distances are of features, not of their codes."""
        return self.features is not None or self.codec.keeps_features

    @property
    def stored(self) -> FeatureFormat | None:
        """How features are stored; None where they are not."""
        return FeatureFormat(self.features, self.extractor.dimension) if self.features else None


def train_collection(
    name: str,
    factory: str,
    extractor: ExtractorIdentity,
    features: Features,
    fpr: float,
    background: Background | None = None,
    kept: FeatureType | None = None,
) -> tuple[NewCollection, Codes]:
    """Train a codec on features (N, D), encode them and calibrate; returns the collection and its codes (N, code_size).

    Args:
        background: unrelated images; without, the collection's own images serve where there are enough.
        kept: how features are stored beside the codes, for exact re-ranking; verdicts are calibrated with it.

    Raises:
        InvalidRequest: FAISS cannot build or train that index on so few features, or it keeps features itself.
    """
    codec = Codec.train(factory, training_sample(features))
    if kept and codec.keeps_features:
        raise kept_twice(factory)
    codes = encode_all(codec, features)
    distractors = codec.encode(background.features) if background else None
    new = NewCollection(name, codec, extractor, distractors=distractors, background=background, features=kept)
    if background is None and len(features) < _FEWEST_TO_CALIBRATE:
        return new, codes
    near = near_distance(background.features[: background.photographs] if background else features)
    all_codes = codes if distractors is None else np.concatenate([codes, distractors])
    contents = Contents(codec, all_codes, len(codes), _stored_at(new, features))
    calibration = calibrate(contents, list(_queries(features, background, near)), fpr, _named(background))
    threshold = calibration.threshold(fpr, 1, len(codes))
    return replace(
        new,
        threshold=None if threshold is None else threshold * calibration.curve(1).scale,
        threshold_fpr=None if threshold is None else fpr,
        calibration=calibration,
        duplicates=groups_of(features, near) if len(features) <= _MOST_COMPARED else (),
    ), codes


def _queries(features: Features, background: Background | None, near: float) -> Iterator[Queries]:
    """Unrelated queries: the background's photographs, and images of the collection where they are enough to tell; each
    with the entries that it may be a copy of."""
    whole = features if background is None else np.concatenate([features, background.features])
    if background is not None:
        yield entries_as_queries(whole, len(features) + np.arange(background.photographs), near)
    if background is None or len(features) >= _FEWEST_OWN_QUERIES:
        yield entries_as_queries(
            whole, np.random.default_rng(1).permutation(len(features))[:_CALIBRATION_QUERIES], near
        )


def _stored_at(new: NewCollection, features: Features) -> Callable[[Positions], Features] | None:
    """What a collection will have stored at positions among its assets' features (N, D) and then its background's."""
    if (stored := new.stored) is None:
        return None
    others = new.background.features if new.background is not None else features[:0]

    def at(positions: Positions) -> Features:
        found = np.empty((len(positions), features.shape[1]), dtype=np.float32)
        ours = positions < len(features)
        found[ours], found[~ours] = features[positions[ours]], others[positions[~ours] - len(features)]
        return stored.decode(stored.encode(found))

    return at


def _named(background: Background | None) -> str:
    return "the collection's own images" if background is None else "background images"


def publish_first(
    files: CollectionStore,
    journal: Journal,
    new: NewCollection,
    assets: Sequence[str],
    codes: Codes,
    check_lock: CheckLock,
    features: Features | None = None,
) -> Manifest:
    """Write one segment with codes (N, code_size) of N assets, upload it with the codec, publish generation 1.

    Entries that a journal of this name already holds belong to a deleted collection and are ignored.

    Args:
        features: (N, D) of the assets, for a collection that keeps features; its distractors are its background.
    """
    begins_after, reading = journal.last_entry(), journal.settling.begin().complete
    settled = _settled_first(files, begins_after)
    with workspace(files) as folder:
        paths, codec_path = SegmentPaths.below(folder, features=new.features is not None), folder / "codec"
        write_segment(new.codec, Entries(codes, assets, ("" for _ in assets), _rows(new, features)), paths)
        segments = [files.upload_segment(paths)]
        if new.distractors is not None:
            named = (distractor_id(i) for i in range(len(new.distractors)))
            rows = _rows(new, new.background.features if new.background is not None else None)
            write_segment(new.codec, Entries(new.distractors, named, ("" for _ in new.distractors), rows), paths)
            segments.append(files.upload_segment(paths).model_copy(update={"distractors": True}))
        new.codec.write(codec_path)
        manifest = Manifest(
            collection=new.name,
            generation=1,
            factory=new.codec.factory,
            extractor=new.extractor,
            codec=files.upload(codec_path),
            segments=segments,
            journal_entry=begins_after,
            threshold=new.threshold,
            threshold_fpr=new.threshold_fpr,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            calibration=new.calibration,
            background=_uploaded(files, folder / "background", new.background),
            duplicates=_uploaded_groups(files, folder / "duplicates", new.duplicates, assets),
            nprobe=new.nprobe,
            features=new.features,
            settled=settled,
        )
    check_lock()
    files.assets.mark_complete()
    journal.begin_incarnation()
    publish(files, journal, manifest)
    journal.announce(manifest.generation, begins_after, covered=begins_after)
    journal.settling.end(reading, settled.before_ms if settled else None)
    return manifest


def _settled_first(files: CollectionStore, entry: str) -> SettledDocuments | None:
    """Where there is no result document at all, a repair need not read those from before. Where there are some, one has
    to: they may be of this very collection, whose files were lost."""
    now_ms = files.now_ms()
    return None if files.has_documents() else SettledDocuments(before_ms=now_ms - MARGIN_MS, entry=entry)


def _rows(new: NewCollection, features: Features | None) -> Iterator[Rows]:
    """Features (N, D) as they are stored, part by part: they may be mapped from a file."""
    if new.stored is not None and features is not None:
        yield from map(new.stored.encode, _parts(features))


def _parts(features: Features) -> list[Features]:
    return np.array_split(features, 1 + len(features) // _TOGETHER)


def distractor_id(number: int) -> str:
    """How an entry is named that belongs to no asset; no answer shows it."""
    return f"distractor-{number:06d}"


def _uploaded(files: CollectionStore, path: Path, background: Background | None) -> str | None:
    if background is None:
        return None
    background.write(path)
    return files.upload(path)


def _uploaded_groups(
    files: CollectionStore, path: Path, groups: Sequence[Sequence[int]], assets: Sequence[str]
) -> str | None:
    if not groups:
        return None
    path.write_text(json.dumps([[assets[position] for position in group] for group in groups]))
    return files.upload(path)
