"""Building a collection: a codec trained on its images' features, one segment, a threshold, generation 1."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tasks.results import ExtractorIdentity
from workers.index.codec.codec import Codec, Codes, Features, search
from workers.index.codec.plan import TRAINS_A_BYTE, product_bytes, usual_cells
from workers.index.codec.trainable import training_sample
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal
from workers.index.collection.manifest import Manifest
from workers.index.collection.segment import SegmentPaths, write_segment
from workers.index.collection.workspace import workspace
from workers.index.maintenance.upkeep import StillOurs

__all__ = ["First", "calibrate", "encoded", "prepared", "publish_first", "suggested_factory", "threshold_of"]

_CALIBRATED_ON: Final = 2_000


def suggested_factory(count: int, dimension: int = 512) -> str:
    """What `aii index build` takes when no factory is given."""
    if count < TRAINS_A_BYTE:
        return "Flat"  # too few to train 8 bits on, and few enough to compare with all
    return f"IVF{usual_cells(count)},PQ{product_bytes(dimension)}x8"


def encoded(codec: Codec, features: Features) -> Codes:
    """Codes (N, code_size) of features (N, D), part by part: they may be mapped from a file."""
    return np.concatenate([codec.encode(part) for part in np.array_split(features, 1 + len(features) // 100_000)])


@dataclass(frozen=True)
class First:
    """What a new collection is, beside its assets."""

    name: str
    codec: Codec
    extractor: ExtractorIdentity
    threshold: float | None = None
    threshold_fpr: float | None = None


def prepared(
    name: str, factory: str, extractor: ExtractorIdentity, features: Features, fpr: float
) -> tuple[First, Codes]:
    """Train on features (N, D), encode and calibrate: a collection to be published, with its codes (N, code_size).

    Raises:
        InvalidRequest: FAISS cannot build or train that index on so few features.
    """
    codec = Codec.train(factory, training_sample(features))
    codes = encoded(codec, features)
    probes = np.sort(np.random.default_rng(1).permutation(len(features))[:_CALIBRATED_ON])
    threshold = calibrate(codec, codes, features[probes], fpr, own=probes)
    return First(name, codec, extractor, threshold, None if threshold is None else fpr), codes


def calibrate(
    codec: Codec, codes: Codes, background: Features, fpr: float, own: Sequence[int] | np.ndarray | None = None
) -> float | None:
    """The squared distance up to which no more than a share `fpr` of unrelated features (N, D) find a first match, at
    nprobe 1; None when none of them finds anything.

    `own` names the position of each feature's own code, which does not count, where the features are the collection's.
    """
    index = codec.filled(codes)
    distances = []
    for i, feature in enumerate(background):
        hits = [d for p, d in search(index, codec.probe(feature, 1), 2) if own is None or p != own[i]]
        distances.append(hits[0] if hits else np.inf)
    return threshold_of(distances, fpr)


def threshold_of(distances: Sequence[float], fpr: float) -> float | None:
    """The largest distance that occurs and that no more than a share `fpr` reaches; what is just below the least of
    them when even that is reached by too many. Hamming distances are often equal, so a quantile would not do."""
    finite = np.asarray(distances, dtype=np.float32)
    values, counts = np.unique(finite[np.isfinite(finite)], return_counts=True)
    if not len(values):
        return None
    allowed = values[np.cumsum(counts) <= fpr * len(distances)]
    return float(allowed[-1] if len(allowed) else np.nextafter(values[0], np.float32(-np.inf)))


def publish_first(
    files: CollectionStore, journal: Journal, first: First, assets: Sequence[str], codes: Codes, still_ours: StillOurs
) -> Manifest:
    """Write one segment with codes (N, code_size) of N assets, upload it with the codec, put generation 1 in force.

    What a journal of that name holds is of a collection that was deleted, and does not count.
    """
    begins_after = journal.last_entry()
    with workspace(files) as folder:
        paths, codec_path = SegmentPaths.below(folder), folder / "codec"
        write_segment(first.codec, codes, assets, ("" for _ in assets), paths)
        first.codec.write(codec_path)
        manifest = Manifest(
            collection=first.name,
            generation=1,
            factory=first.codec.factory,
            extractor=first.extractor,
            codec=files.upload(codec_path),
            segments=[files.upload_segment(paths)],
            journal_entry=begins_after,
            threshold=first.threshold,
            threshold_fpr=first.threshold_fpr,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
    still_ours()
    files.publish(manifest)
    journal.announce(manifest.generation, begins_after, covered=begins_after)
    return manifest
