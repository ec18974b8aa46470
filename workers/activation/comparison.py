"""Edited copies of registered images, searched with a collection's present codec and with its next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image

from tasks.bounded_map import bounded_map
from tasks.errors import AiiError
from tasks.storage import Bucket, ObjectStore
from workers.extractors.base import Extractor
from workers.images import Limits, decode
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Features, search_many
from workers.index.collection.segments import Segments
from workers.index.maintenance.activations import Activations
from workers.index.maintenance.documents import Activation
from workers.index.maintenance.retrain import Candidate, Current

__all__ = ["NPROBES", "Compared", "compare"]

NPROBES: Final = (1, 16)
_READERS: Final = 2
_DEPTH: Final = 10
_TIED: Final = 1e-5


@dataclass(frozen=True)
class Compared:
    """How many edited copies of one published image, of `copies`, come first, by nprobe of :data:`NPROBES`."""

    activated: bool
    copies: int
    present: tuple[int, ...]
    candidate: tuple[int, ...]


@dataclass(frozen=True)
class _Image:
    asset_id: str
    position: int
    activated: Activation | None


def compare(
    store: ObjectStore, current: Current, candidate: Candidate, activated: Activations,
    extractor: Extractor, limits: Limits, count: int, progress: Callable[[int, int], None],
) -> Iterator[Compared]:  # fmt: skip
    """Search the fourteen edits of a random sample of the assets: of protected images their published files, of others
    their originals. Those whose file is gone are left out.

    Args:
        activated: what documents say, as it was read.
        count: how many assets are drawn.
        progress: called with the number of images done, and of all.
    """
    from workers.images.edits import EDITS, edit_seed  # noqa: PLC0415  # torchvision takes long to import

    segments = Segments(current.codec, [segment for part, segment in current.segments if not part.distractors])
    index = candidate.new.codec.filled(candidate.codes)
    drawn = _drawn(current, activated, count)

    def pixels(image: _Image) -> tuple[_Image, Image.Image] | None:
        try:
            return image, Image.fromarray(decode(_file(store, image, limits), limits).pixels)
        except AiiError:
            return None

    for done, read in enumerate(bounded_map(pixels, drawn, _READERS), 1):
        progress(done, len(drawn))
        if read is None:
            continue
        image, picture = read
        seed = edit_seed(0, image.asset_id)
        copies = [np.asarray(edit(picture, seed)) for edit in EDITS.values()]
        features = _features(copies, extractor)
        yield Compared(
            image.activated is not None,
            len(copies),
            tuple(_found_now(segments, current.codec, features, image.asset_id, nprobe) for nprobe in NPROBES),
            tuple(_found_then(candidate.new.codec, index, features, image.position, nprobe) for nprobe in NPROBES),
        )


def _drawn(current: Current, activated: Activations, count: int) -> list[_Image]:
    total = current.manifest.assets
    chosen = set(np.random.default_rng(0).permutation(total)[:count].tolist())
    pairs = ((position, asset) for position, asset in enumerate(current.assets()) if position in chosen)
    return [_Image(asset, position, activated.get(asset)) for position, asset in pairs]


def _file(store: ObjectStore, image: _Image, limits: Limits) -> bytes:
    if image.activated is None:
        return store.get_verified(Bucket.ORIGINALS, image.asset_id, image.asset_id, limits.max_bytes)
    key, digest = image.activated.protected_key, image.activated.protected_sha256
    return store.get_verified(Bucket.PROTECTED, key, digest, 4 * limits.max_bytes)


def _features(copies: list[np.ndarray], extractor: Extractor) -> Features:
    with torch.no_grad():
        inputs = torch.stack([to_input(copy, extractor.input_size) for copy in copies]).to(extractor.device)
        features: Features = extractor(inputs).cpu().numpy()
    return features


def _found_now(segments: Segments, codec: Codec, features: Features, asset_id: str, nprobe: int) -> int:
    found = 0
    for probe in codec.probes(features, nprobe):
        hits = segments.best(probe, _DEPTH, {})
        found += any(hit.asset_id == asset_id and hit.distance <= hits[0].distance + _TIED for hit in hits)
    return found


def _found_then(codec: Codec, index: object, features: Features, position: int, nprobe: int) -> int:
    distances, positions = search_many(codec, index, features, nprobe, _DEPTH)
    return int(((positions == position) & (distances <= distances[:, :1] + _TIED)).any(axis=1).sum())
