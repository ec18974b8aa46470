"""Builds a collection: a codec trained on its images' features, one segment, a threshold, generation 1."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tasks.results import ExtractorIdentity
from workers.index.codec.codec import Codec, Codes, Features, search
from workers.index.codec.plan import BYTE_CENTROIDS, product_bytes, usual_cells
from workers.index.codec.trainable import training_sample
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.manifest import Manifest
from workers.index.collection.pinned import publish
from workers.index.collection.segment import SegmentPaths, write_segment
from workers.index.collection.workspace import workspace
from workers.index.maintenance.upkeep import CheckLock

__all__ = [
    "NewCollection",
    "calibrate",
    "encode_all",
    "publish_first",
    "suggested_factory",
    "threshold_of",
    "train_collection",
]

_CALIBRATION_QUERIES: Final = 2_000


def suggested_factory(count: int, dimension: int = 512) -> str:
    """The FAISS factory string that `aii index build` uses for `count` images when none is given."""
    if count < BYTE_CENTROIDS:
        return "Flat"  # too few to train an 8-bit code on, and few enough to compare a query with all
    return f"IVF{usual_cells(count)},PQ{product_bytes(dimension)}x8"


def encode_all(codec: Codec, features: Features) -> Codes:
    """Codes (N, code_size) of features (N, D), part by part: they may be mapped from a file."""
    return np.concatenate([codec.encode(part) for part in np.array_split(features, 1 + len(features) // 100_000)])


@dataclass(frozen=True)
class NewCollection:
    """A collection to be published, without its assets."""

    name: str
    codec: Codec
    extractor: ExtractorIdentity
    threshold: float | None = None
    threshold_fpr: float | None = None


def train_collection(
    name: str, factory: str, extractor: ExtractorIdentity, features: Features, fpr: float
) -> tuple[NewCollection, Codes]:
    """Train a codec on features (N, D), encode them and calibrate; returns the collection and its codes (N, code_size).

    Raises:
        InvalidRequest: FAISS cannot build or train that index on so few features.
    """
    codec = Codec.train(factory, training_sample(features))
    codes = encode_all(codec, features)
    probes = np.sort(np.random.default_rng(1).permutation(len(features))[:_CALIBRATION_QUERIES])
    threshold = calibrate(codec, codes, features[probes], fpr, own=probes)
    return NewCollection(name, codec, extractor, threshold, None if threshold is None else fpr), codes


def calibrate(
    codec: Codec, codes: Codes, background: Features, fpr: float, own: Sequence[int] | np.ndarray | None = None
) -> float | None:
    """The distance up to which at most a share `fpr` of unrelated features (N, D) find a first match, at nprobe 1; None
    when none of them finds anything.

    Args:
        own: where the features are the collection's, the position of each one's own code, which is left out.
    """
    index = codec.filled(codes)
    distances = []
    for i, feature in enumerate(background):
        hits = [d for p, d in search(index, codec.probe(feature, 1), 2) if own is None or p != own[i]]
        distances.append(hits[0] if hits else np.inf)
    return threshold_of(distances, fpr)


def threshold_of(distances: Sequence[float], fpr: float) -> float | None:
    """The largest of the distances that at most a share `fpr` of them do not exceed; just below the smallest one when
    even that is too many. None when no distance is finite.

    Not a quantile, because Hamming distances are often equal: all of the equal ones would pass.
    """
    finite = np.asarray(distances, dtype=np.float32)
    values, counts = np.unique(finite[np.isfinite(finite)], return_counts=True)
    if not len(values):
        return None
    allowed = values[np.cumsum(counts) <= fpr * len(distances)]
    return float(allowed[-1] if len(allowed) else np.nextafter(values[0], np.float32(-np.inf)))


def publish_first(
    files: CollectionStore,
    journal: Journal,
    new: NewCollection,
    assets: Sequence[str],
    codes: Codes,
    check_lock: CheckLock,
) -> Manifest:  # fmt: skip
    """Write one segment with codes (N, code_size) of N assets, upload it with the codec, publish generation 1.

    Entries that a journal of this name already holds belong to a deleted collection and are ignored.
    """
    begins_after = journal.last_entry()
    with workspace(files) as folder:
        paths, codec_path = SegmentPaths.below(folder), folder / "codec"
        write_segment(new.codec, codes, assets, ("" for _ in assets), paths)
        new.codec.write(codec_path)
        manifest = Manifest(
            collection=new.name,
            generation=1,
            factory=new.codec.factory,
            extractor=new.extractor,
            codec=files.upload(codec_path),
            segments=[files.upload_segment(paths)],
            journal_entry=begins_after,
            threshold=new.threshold,
            threshold_fpr=new.threshold_fpr,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
    check_lock()
    publish(files, journal, manifest)
    journal.announce(manifest.generation, begins_after, covered=begins_after)
    return manifest
