"""Building a collection: a codec trained on its images' features, one segment, a threshold, generation 1."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tasks.results import ExtractorIdentity
from workers.index.codec import Codec, Codes, Features, search
from workers.index.journal import BEGINNING
from workers.index.manifest import CollectionStore, Manifest
from workers.index.plan import usual_cells
from workers.index.segment import SegmentPaths, write_segment

__all__ = ["build", "calibrate", "publish_first", "suggested_factory"]

# More features than these teach a codec nothing: FAISS itself looks at 256 for each centroid.
_TRAINED_ON: Final = 1_000_000
_CALIBRATED_ON: Final = 2_000


def suggested_factory(count: int) -> str:
    """What `aii index build` takes when no factory is given."""
    return f"IVF{usual_cells(count)},PQ8x8"


def build(
    files: CollectionStore, name: str, factory: str, extractor: ExtractorIdentity, assets: Sequence[str],
    features: Features, fpr: float,
) -> Manifest:  # fmt: skip
    """Train, encode, calibrate and publish features (N, D) of N assets as generation 1 of a collection.

    Raises:
        InvalidRequest: FAISS cannot build or train that index on so few features.
    """
    random = np.random.default_rng(0)
    sample = np.sort(random.permutation(len(features))[:_TRAINED_ON])
    codec = Codec.train(factory, features[sample])
    codes = np.concatenate([codec.encode(part) for part in np.array_split(features, 1 + len(features) // 100_000)])
    probes = np.sort(random.permutation(len(features))[:_CALIBRATED_ON])
    threshold = calibrate(codec, codes, features[probes], fpr, own=probes)
    return publish_first(files, name, codec, extractor, assets, codes, threshold, fpr)


def calibrate(
    codec: Codec, codes: Codes, background: Features, fpr: float, own: Sequence[int] | np.ndarray | None = None
) -> float:
    """The squared distance below which a share `fpr` of unrelated features (N, D) find a first match, at nprobe 1.

    `own` names the position of each feature's own code, which does not count, where the features are the collection's.
    """
    index = codec.filled(codes)
    distances = []
    for i, feature in enumerate(background):
        hits = [d for p, d in search(index, codec.probe(feature, 1), 2) if own is None or p != own[i]]
        distances.append(hits[0] if hits else np.inf)
    return float(np.quantile(distances, fpr, method="lower"))


def publish_first(
    files: CollectionStore, name: str, codec: Codec, extractor: ExtractorIdentity, assets: Sequence[str],
    codes: Codes, threshold: float | None, fpr: float | None,
) -> Manifest:  # fmt: skip
    """Write one segment with codes (N, code_size) of N assets, upload it with the codec, put generation 1 in force."""
    with tempfile.TemporaryDirectory() as folder:
        paths, codec_path = SegmentPaths.below(Path(folder)), Path(folder, "codec")
        write_segment(codec, codes, assets, ("" for _ in assets), paths)
        codec.write(codec_path)
        manifest = Manifest(
            collection=name,
            generation=1,
            factory=codec.factory,
            extractor=extractor,
            codec=files.upload(codec_path),
            segments=[files.upload_segment(paths)],
            journal_entry=BEGINNING,
            threshold=threshold,
            threshold_fpr=fpr,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
    files.publish(manifest)
    return manifest
