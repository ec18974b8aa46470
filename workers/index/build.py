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
from workers.index.manifest import CollectionStore, Manifest, SegmentFiles
from workers.index.segment import write_segment

__all__ = ["build", "calibrate", "publish_first", "suggested_factory"]

# More features than these teach a codec nothing: FAISS itself looks at 256 for each centroid.
_TRAINED_ON: Final = 1_000_000
_CALIBRATED_ON: Final = 2_000
_POINTS_PER_CELL: Final = 39  # below that FAISS warns that cells are trained on too little


def suggested_factory(count: int) -> str:
    """Cells of a size that takes a search to a few hundred codes, as far as there are images to train them on."""
    cells = 1 << max(4, round(np.log2(4 * np.sqrt(count))))
    while cells > 16 and cells * _POINTS_PER_CELL > count:
        cells //= 2
    return f"IVF{cells},PQ8x8"


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
        hits = [d for p, d in search(index, feature, 2, 1) if own is None or p != own[i]]
        distances.append(hits[0] if hits else np.inf)
    return float(np.quantile(distances, fpr, method="lower"))


def publish_first(
    files: CollectionStore, name: str, codec: Codec, extractor: ExtractorIdentity, assets: Sequence[str],
    codes: Codes, threshold: float | None, fpr: float | None,
) -> Manifest:  # fmt: skip
    """Write one segment with codes (N, code_size) of N assets, upload it with the codec, put generation 1 in force."""
    with tempfile.TemporaryDirectory() as folder:
        index_path, assets_path, codec_path = (Path(folder, part) for part in ("index", "assets", "codec"))
        write_segment(codec, codes, assets, index_path, assets_path)
        codec.write(codec_path)
        manifest = Manifest(
            collection=name,
            generation=1,
            factory=codec.factory,
            extractor=extractor,
            codec=files.upload(codec_path),
            segments=[SegmentFiles(index=files.upload(index_path), assets=files.upload(assets_path), count=len(codes))],
            journal_entry=BEGINNING,
            threshold=threshold,
            threshold_fpr=fpr,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
    files.publish(manifest)
    return manifest
